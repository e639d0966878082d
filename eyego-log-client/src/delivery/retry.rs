//! How long to wait before the next attempt.

use std::time::{Duration, SystemTime};

/// The longest pause that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
    pub(crate) delivery_timeout: Duration,
}

impl RetryPolicy {
    /// Returns the pause after `failures` consecutive failures: a random
    /// duration between zero and the exponential backoff ("full jitter").
    pub(crate) fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(31));
        let backoff = self.base.saturating_mul(factor).min(self.max);
        let micros = u64::try_from(backoff.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.u64(0..=micros))
    }
}

/// Parses a `Retry-After` header, which is a number of seconds or an HTTP date.
/// The result is at most five minutes. Returns `None` if the value is invalid.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date in the past asks for no pause.
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(MAX_RETRY_AFTER))
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
    fn retry_after_is_parsed_and_capped() {
        let now = httpdate::parse_http_date("Wed, 14 Jan 2026 23:58:05 GMT").unwrap()
            + Duration::from_millis(500);
        let parse = |value| retry_after(value, now);
        assert_eq!(parse(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(parse("86400"), Some(Duration::from_secs(300)));
        assert_eq!(parse("Wed, 14 Jan 2026 23:58:12 GMT"), Some(Duration::from_millis(6500)));
        assert_eq!(parse("Thu, 15 Jan 2026 23:58:12 GMT"), Some(Duration::from_secs(300)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        for invalid in ["soon", "-1", "", "Wed, 14 Jan 2026 23:58:12 CET", "Wed, 99 Jan 2026 1 GMT"]
        {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value: String, date in "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{1,9} GMT") {
            let _ = (retry_after(&value, SystemTime::UNIX_EPOCH), retry_after(&date, SystemTime::UNIX_EPOCH));
        }
    }

    #[test]
    fn pauses_are_spread_over_the_whole_range() {
        let mut rng = fastrand::Rng::with_seed(7);
        let pauses: Vec<_> = (0..1000).map(|_| POLICY.delay(1, &mut rng)).collect();
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(10)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(90)));
        let mean = pauses.iter().sum::<Duration>() / 1000;
        assert!((40..60).contains(&mean.as_millis()), "{mean:?}");
    }

    proptest! {
        #[test]
        fn pauses_never_exceed_the_backoff(failures in 0_u32..1000, seed: u64) {
            let pause = POLICY.delay(failures, &mut fastrand::Rng::with_seed(seed));
            let doublings = failures.saturating_sub(1).min(20);
            prop_assert!(pause <= (POLICY.base * 2_u32.pow(doublings)).min(POLICY.max));
        }
    }
}
