//! Counts different items in bounded memory.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Counts different hashes: exactly up to `2 * kept`, and beyond that
/// estimated from the density of the smallest ones (ADR 0037).
#[derive(Debug)]
pub(super) struct Distinct {
    kept: usize,
    hashes: HashSet<u64, BuildHasherDefault<Rotated>>,
    /// Greater hashes are no longer kept. `None` while the count is exact.
    max: Option<u64>,
}

/// The items are hashes already. The kept ones begin with the same bits, which a
/// `HashSet` uses too, so others are moved there.
#[derive(Debug, Default)]
struct Rotated(u64);

impl Hasher for Rotated {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.rotate_left(32);
    }

    /// Required by the trait, but never called: items are `u64`.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Distinct {
    pub(super) fn new(kept: usize) -> Self {
        Self { kept, hashes: HashSet::default(), max: None }
    }

    /// Adds an item. Returns `true` if it takes memory.
    pub(super) fn add(&mut self, hash: u64) -> bool {
        if self.max.is_some_and(|max| hash > max) || !self.hashes.insert(hash) {
            return false;
        }
        if self.hashes.len() > 2 * self.kept {
            let mut hashes: Vec<_> = self.hashes.iter().copied().collect();
            let (_, max, _) = hashes.select_nth_unstable(self.kept - 1);
            let max = *max;
            self.hashes.retain(|hash| *hash <= max);
            self.max = Some(max);
        }
        true
    }

    pub(super) fn is_exact(&self) -> bool {
        self.max.is_none()
    }

    /// Returns the number of hashes in memory.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn count(&self) -> u64 {
        match self.max {
            None => self.hashes.len() as u64,
            // All hashes up to `max` are known, and hashes are evenly distributed.
            Some(max) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "an estimate"
                )]
                let estimate = (self.hashes.len() as f64 / (max as f64 / u64::MAX as f64)) as u64;
                estimate
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

    use super::*;

    #[test]
    fn the_count_is_exact_at_first_and_then_close() {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let mut distinct = Distinct::new(1_000);
        for n in 0..100_000_u64 {
            distinct.add(hasher.hash_one(n));
            distinct.add(hasher.hash_one(n / 2));
            let (count, actual) = (distinct.count(), n + 1);
            if n < 2_000 {
                assert_eq!((count, distinct.is_exact()), (actual, true));
            } else {
                assert!(count.abs_diff(actual) < actual / 8, "{count} of {actual}");
            }
            assert!(distinct.len() <= 2_000);
        }
        assert!(!distinct.is_exact());
    }
}
