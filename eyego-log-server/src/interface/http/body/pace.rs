//! How fast a body must arrive (ADR 0023). Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A body that is complete after this time may be as slow as it likes.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Length of the window in which the rate is measured, in steps of a second.
pub(super) const WINDOW_SECONDS: usize = 5;

/// Minimum rate in every window after the grace period, in bytes per second.
pub(super) const MIN_RATE: usize = 64 << 10;

/// Measures the pace at which a body arrives, second by second.
///
/// A client cannot earn time by sending quickly first: only the last five seconds
/// count. In addition there is an absolute deadline, which follows from the size of
/// the body.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    deadline: Instant,
    /// Bytes received in each of the last seconds.
    seconds: [usize; WINDOW_SECONDS],
    /// Number of complete seconds since the start.
    elapsed: u32,
}

impl Pace {
    /// Starts measuring a body of up to `max_bytes` bytes.
    pub(super) fn start(now: Instant, max_bytes: usize) -> Self {
        let window = Duration::from_secs(WINDOW_SECONDS as u64);
        let transfer = Duration::from_secs((max_bytes / MIN_RATE) as u64);
        Self {
            start: now,
            deadline: now + GRACE + window + transfer,
            seconds: [0; WINDOW_SECONDS],
            elapsed: 0,
        }
    }

    /// Returns when [`is_too_slow`](Self::is_too_slow) must be asked again.
    pub(super) fn next_check(&self) -> Instant {
        self.start + Duration::from_secs(u64::from(self.elapsed) + 1)
    }

    /// Counts bytes that have just arrived.
    pub(super) fn received(&mut self, bytes: usize) {
        self.seconds[self.elapsed as usize % WINDOW_SECONDS] += bytes;
    }

    /// Returns whether the body is slower than the minimum rate or past its
    /// deadline.
    pub(super) fn is_too_slow(&mut self, now: Instant) -> bool {
        while self.next_check() <= now {
            self.elapsed += 1;
            let grace = GRACE + Duration::from_secs(WINDOW_SECONDS as u64);
            let is_measured = Duration::from_secs(u64::from(self.elapsed)) >= grace;
            let received: usize = self.seconds.iter().sum();
            if is_measured && received < MIN_RATE * WINDOW_SECONDS {
                return true;
            }
            self.seconds[self.elapsed as usize % WINDOW_SECONDS] = 0;
        }
        now >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Returns the second in which a body is refused that sends `bytes(second)` at
    /// the beginning of each second.
    fn refused_after(max_bytes: usize, bytes: impl Fn(u32) -> usize) -> Option<u32> {
        let start = Instant::now();
        let mut pace = Pace::start(start, max_bytes);
        (1..600).find(|second| {
            pace.received(bytes(second - 1));
            pace.is_too_slow(start + Duration::from_secs((*second).into()))
        })
    }

    #[test]
    fn fast_beginning_does_not_extend_the_time() {
        let burst = |second| if second == 0 { 15 * MIB } else { 1 };
        assert_eq!(refused_after(16 * MIB, burst), Some(10));
    }

    #[test]
    fn bursts_must_be_close_together() {
        let every =
            |pause: u32| move |second: u32| if second.is_multiple_of(pause) { MIB } else { 0 };
        assert_eq!(refused_after(1 << 30, every(4)), None);
        assert_eq!(refused_after(1 << 30, every(5)), None);
        assert_eq!(refused_after(1 << 30, every(6)), Some(12));
    }

    #[test]
    fn steady_body_at_the_minimum_rate_is_accepted_until_the_deadline() {
        assert_eq!(refused_after(16 * MIB, |_| MIN_RATE), Some(10 + 256));
        assert_eq!(refused_after(16 * MIB, |_| MIN_RATE - 1), Some(10));
    }

    #[test]
    fn checks_that_come_late_find_the_slow_window() {
        let start = Instant::now();
        let mut pace = Pace::start(start, MIB);
        pace.received(MIB);
        assert!(!pace.is_too_slow(start + Duration::from_millis(9_999)));
        assert!(pace.is_too_slow(start + Duration::from_secs(60)));
    }
}
