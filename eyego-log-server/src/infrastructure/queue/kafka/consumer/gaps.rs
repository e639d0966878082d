//! Detects offsets that were expected and not delivered. This module does no I/O.

use std::collections::HashMap;

use crate::domain::position::{Offset, Partition};

/// The next expected offset of each partition.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    partitions: HashMap<Partition, Expected>,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    next: Offset,
    /// The highest one so far. `next` is lower once the offsets of a recreated topic
    /// have started again.
    highest: Offset,
}

/// Skipped offsets, from `first` (inclusive) to `end` (exclusive).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) partition: Partition,
    first: Offset,
    end: Offset,
}

impl Gap {
    /// Returns the number of offsets below the start of the log, if any.
    pub(super) fn below(&self, log_start: Offset) -> Option<u64> {
        let expired = log_start.min(self.end) - self.first;
        u64::try_from(expired).ok().filter(|expired| *expired > 0)
    }
}

impl Gaps {
    /// Sets the next expected offset of these partitions.
    pub(super) fn expect(&mut self, next_offsets: &[(Partition, Offset)]) {
        let valid = next_offsets.iter().copied().filter(|(_, offset)| *offset >= 0);
        let expected = valid.map(|(id, next)| (id, Expected { next, highest: next }));
        self.partitions.extend(expected);
    }

    /// Forgets a partition that moves to another consumer.
    pub(super) fn forget(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
    }

    /// Returns `true` if an offset of this partition is expected.
    pub(super) fn expects(&self, partition: Partition) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// Returns the partitions with an expected offset, and the highest one so far.
    pub(super) fn reached(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.partitions.iter().map(|(partition, expected)| (*partition, expected.highest))
    }

    /// Records that the log of a partition starts at `first`. Returns the number
    /// of expected records that were deleted.
    pub(super) fn skip_to(&mut self, partition: Partition, first: Offset) -> u64 {
        let Some(expected) = self.partitions.get_mut(&partition) else { return 0 };
        let deleted = u64::try_from(first - expected.next).unwrap_or(0);
        expected.next = first.max(expected.next);
        expected.highest = expected.highest.max(expected.next);
        deleted
    }

    /// Records a delivery, and returns the gap before it. There is no gap if no
    /// offset was expected or offsets restart.
    pub(super) fn deliver(&mut self, partition: Partition, offset: Offset) -> Option<Gap> {
        let next = offset + 1;
        let Some(expected) = self.partitions.get_mut(&partition) else {
            self.expect(&[(partition, next)]);
            return None;
        };
        let first = std::mem::replace(&mut expected.next, next);
        expected.highest = expected.highest.max(next);
        (first < offset).then_some(Gap { partition, first, end: offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_offsets_are_a_gap() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.deliver(0, 7), None, "no offset was expected");
        assert_eq!(gaps.deliver(0, 8), None);
        let gap = gaps.deliver(0, 12).unwrap();
        assert_eq!(gap, Gap { partition: 0, first: 9, end: 12 });
        assert_eq!(gaps.deliver(0, 13), None);
        assert_eq!(gaps.deliver(0, 3), None, "the topic was recreated");
        assert_eq!(gaps.reached().collect::<Vec<_>>(), [(0, 14)], "in the deleted topic");
        gaps.forget(0);
        assert_eq!(gaps.deliver(0, 40), None, "another consumer consumed those");
        // -1001: the group has committed nothing.
        gaps.expect(&[(1, 5), (2, -1001)]);
        assert!(gaps.deliver(1, 9).is_some());
        assert_eq!(gaps.deliver(2, 9), None);
    }

    #[test]
    fn records_deleted_before_any_delivery_are_counted_once() {
        let mut gaps = Gaps::default();
        gaps.expect(&[(0, 5)]);
        assert_eq!(gaps.skip_to(0, 3), 0);
        assert_eq!(gaps.skip_to(0, 9), 4);
        assert_eq!(gaps.skip_to(0, 9), 0);
        assert_eq!(gaps.skip_to(1, 9), 0, "not assigned");
        assert_eq!(gaps.deliver(0, 9), None);
        assert_eq!(gaps.reached().collect::<Vec<_>>(), [(0, 10)]);
    }

    #[test]
    fn only_offsets_below_the_start_of_the_log_are_expired() {
        let gap = Gap { partition: 0, first: 10, end: 20 };
        assert_eq!(gap.below(0), None);
        assert_eq!(gap.below(10), None);
        assert_eq!(gap.below(14), Some(4));
        assert_eq!(gap.below(20), Some(10));
        assert_eq!(gap.below(50), Some(10), "the log's start moved past the gap");
    }
}
