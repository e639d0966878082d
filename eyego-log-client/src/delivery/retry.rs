//! How long to wait before the next attempt, and when to give up: pure
//! functions and a small random generator that is handed its seed.

use std::time::Duration;

use eyego_log_core::Timestamp;

/// The longest pause that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// How failed attempts are repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
    pub(crate) delivery_timeout: Duration,
}

impl RetryPolicy {
    /// The pause after the `failures`th failure in a row (from 1): anything
    /// from nothing to the doubled base ("full jitter").
    pub(crate) fn delay(&self, failures: u32, jitter: &mut Jitter) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(31));
        jitter.up_to(self.base.saturating_mul(doubled).min(self.max))
    }
}

/// The pause that a `Retry-After` asks for, at most five minutes: a number of
/// seconds, or a date, which is compared with the clock here. `None` where it
/// is neither: then the back-off alone decides.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let pause = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let ahead = http_date(value)?.as_millis().saturating_sub(now.as_millis());
            // What is over asks for no pause.
            Duration::from_millis(u64::try_from(ahead).unwrap_or(0))
        }
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: the form that HTTP has prescribed since
/// 1997; the two older ones are not read.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

    let (_, date) = text.split_once(", ")?;
    let mut parts = date.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    if (parts.next(), parts.next()) != (Some("GMT"), None) {
        return None;
    }
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

/// A source of random pauses (xorshift64*): good enough for jitter.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let max = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        let share = (u128::from(random) * (u128::from(max) + 1)) >> 64;
        Duration::from_micros(u64::try_from(share).unwrap_or(max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        base: Duration::from_millis(100),
        max: Duration::from_secs(30),
        delivery_timeout: Duration::from_secs(120),
    };

    #[test]
    fn retry_after_is_read_and_capped() {
        let now = "2026-01-14T23:58:05.500Z".parse().unwrap();
        let read = |value| retry_after(value, now);
        assert_eq!(read(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(read("86400"), Some(Duration::from_secs(300)));
        assert_eq!(read("Wed, 14 Jan 2026 23:58:12 GMT"), Some(Duration::from_millis(6500)));
        assert_eq!(read("Thu, 15 Jan 2026 23:58:12 GMT"), Some(Duration::from_secs(300)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        for neither in ["soon", "-1", "", "Wed, 14 Jan 2026 23:58:12 CET", "Wed, 99 Jan 2026 1 GMT"]
        {
            assert_eq!(read(neither), None, "{neither}");
        }
    }

    proptest! {
        #[test]
        fn no_retry_after_panics(value: String, date in "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{1,9} GMT") {
            let now = Timestamp::from(std::time::SystemTime::UNIX_EPOCH);
            let _ = (retry_after(&value, now), retry_after(&date, now));
        }
    }

    #[test]
    fn pauses_spread_over_their_whole_range() {
        let mut jitter = Jitter::new(7);
        let pauses: Vec<_> = (0..1000).map(|_| POLICY.delay(1, &mut jitter)).collect();
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(10)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(90)));
        let mean = pauses.iter().sum::<Duration>() / 1000;
        assert!((40..60).contains(&mean.as_millis()), "{mean:?}");
    }

    proptest! {
        #[test]
        fn pauses_stay_within_the_doubled_base(failures in 0_u32..1000, seed: u64) {
            let pause = POLICY.delay(failures, &mut Jitter::new(seed));
            let doublings = failures.saturating_sub(1).min(20);
            prop_assert!(pause <= (POLICY.base * 2_u32.pow(doublings)).min(POLICY.max));
        }
    }
}
