//! Whether records are sent to the queue or straight to the spool. Pure: the
//! time is handed in.

use std::time::{Duration, Instant};

/// After a failure the queue is tried again this often.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Where records go.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// `None`: to the queue.
    failed_at: Option<Instant>,
}

impl Breaker {
    /// Whether the queue did not take what it was last given.
    pub(super) fn is_open(&self) -> bool {
        self.failed_at.is_some()
    }

    /// For how long nobody should try the queue, if anybody should wait.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let next = self.failed_at? + PROBE_INTERVAL;
        Some(next.saturating_duration_since(now)).filter(|pause| !pause.is_zero())
    }

    /// The queue failed; answers whether that is news.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        self.failed_at.replace(now).is_none()
    }

    /// The queue took records; answers whether that is news.
    pub(super) fn succeed(&mut self) -> bool {
        self.failed_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_opens_it_and_a_success_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert!(!breaker.is_open());
        assert_eq!(breaker.pause(start), None);
        assert!(breaker.fail(start));
        assert!(!breaker.fail(start), "no news");
        assert!(breaker.is_open());
        assert!(breaker.succeed());
        assert!(!breaker.succeed(), "no news");
        assert!(!breaker.is_open());
    }

    #[test]
    fn it_is_tried_again_after_each_interval() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        breaker.fail(start);
        assert_eq!(breaker.pause(start), Some(PROBE_INTERVAL));
        assert_eq!(breaker.pause(start + PROBE_INTERVAL), None);
        breaker.fail(start + PROBE_INTERVAL);
        assert_eq!(breaker.pause(start + PROBE_INTERVAL), Some(PROBE_INTERVAL));
    }
}
