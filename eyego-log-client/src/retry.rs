//! How long to wait before the next attempt, and when to give up: pure
//! functions and a small random generator that is handed its seed.

use std::time::Duration;

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

/// The pause that a `Retry-After` asks for: seconds, at most five minutes.
/// Its other form, a date, is not read: then the back-off alone decides.
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let seconds: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
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
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("86400"), Some(Duration::from_secs(300)));
        assert_eq!(retry_after("soon"), None);
        assert_eq!(retry_after("-1"), None);
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
