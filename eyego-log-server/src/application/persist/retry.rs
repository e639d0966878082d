//! When to try again. Pure: the random number comes in from outside.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Exponential back-off with full jitter: a random part of a bound that
/// doubles. Many clients of a store that comes back do not come in step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// The bound of the first delay.
    pub(super) base: Duration,
    /// The bound that no delay passes.
    pub(super) cap: Duration,
}

impl Backoff {
    /// The delay before attempt `attempt` (from 1) is repeated; `random` is in
    /// 0.0 to 1.0.
    #[must_use]
    pub(super) fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let bound = self.base.saturating_mul(1 << doublings).min(self.cap);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// [`delay`](Self::delay) with a random number of this process.
    #[must_use]
    pub(super) fn jittered(&self, attempt: u32) -> Duration {
        self.delay(attempt, random())
    }
}

/// A random number in 0.0 to 1.0; good enough to spread retries.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a float")]
fn random() -> f64 {
    // The keys of each `RandomState` differ.
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
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
        fn no_delay_passes_the_cap(attempt: u32, random in 0.0f64..=1.0) {
            prop_assert!(BACKOFF.delay(attempt, random) <= BACKOFF.cap);
            prop_assert!(BACKOFF.jittered(attempt) <= BACKOFF.cap);
        }
    }
}
