//! Back-off between retries. Pure, except for [`Backoff::jittered`].

use std::time::Duration;

/// Exponential back-off with full jitter: a random part of a bound that doubles
/// with each attempt, so that clients of a recovering store do not retry in
/// lockstep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// Bound of the first delay.
    pub(super) base: Duration,
    /// Maximum bound.
    pub(super) cap: Duration,
}

impl Backoff {
    /// Returns the delay after failed attempt number `attempt` (from 1).
    /// `random` is between 0.0 and 1.0.
    #[must_use]
    pub(super) fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let bound = self.base.saturating_mul(1 << doublings).min(self.cap);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Returns a random [`delay`](Self::delay).
    #[must_use]
    pub(super) fn jittered(&self, attempt: u32) -> Duration {
        self.delay(attempt, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff =
        Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let bounds: Vec<_> =
            (1..=9).map(|attempt| BACKOFF.delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    proptest! {
        #[test]
        fn no_delay_exceeds_the_cap(attempt: u32, random in 0.0f64..=1.0) {
            prop_assert!(BACKOFF.delay(attempt, random) <= BACKOFF.cap);
            prop_assert!(BACKOFF.jittered(attempt) <= BACKOFF.cap);
        }
    }
}
