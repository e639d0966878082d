//! Pseudo-random numbers (`SplitMix64`). They are part of the plan, so they must be the same for a
//! seed on every machine and in every version.

use std::time::Duration;

/// A sequence of numbers that follows from a seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

/// Returns the number that belongs to `n` under this seed.
pub(super) fn mix(seed: u64, n: u64) -> u64 {
    let mut random = Random(seed ^ n.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    random.next();
    random.next()
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to `limit - 1`. `limit` must not be 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let limit = limit as u64;
        usize::try_from(self.next() % limit).unwrap_or_default()
    }

    /// Returns a duration between two numbers of milliseconds, both included.
    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from + 1))
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
