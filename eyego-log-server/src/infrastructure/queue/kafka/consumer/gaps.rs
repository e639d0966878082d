//! Offsets that were expected and did not come. Pure.

use std::collections::HashMap;

use crate::domain::queue::{Offset, Partition};

/// The offset that each partition is expected to deliver next.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    next: HashMap<Partition, Offset>,
}

/// Offsets that were skipped: from `first` on, below `end`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) partition: Partition,
    first: Offset,
    end: Offset,
}

impl Gap {
    /// How many of its offsets lie below the log's start.
    pub(super) fn below(&self, log_start: Offset) -> Option<u64> {
        let expired = log_start.min(self.end) - self.first;
        u64::try_from(expired).ok().filter(|expired| *expired > 0)
    }
}

impl Gaps {
    /// These partitions go on there.
    pub(super) fn begin(&mut self, next_offsets: &[(Partition, Offset)]) {
        self.next.extend(next_offsets.iter().copied().filter(|(_, offset)| *offset >= 0));
    }

    /// This partition goes to somebody else.
    pub(super) fn end(&mut self, partition: Partition) {
        self.next.remove(&partition);
    }

    /// Notes a delivered record; answers what was skipped before it. Where
    /// nothing was expected, and where offsets begin again, nothing was.
    pub(super) fn deliver(&mut self, partition: Partition, offset: Offset) -> Option<Gap> {
        let first = self.next.insert(partition, offset + 1)?;
        (first < offset).then_some(Gap { partition, first, end: offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_a_gap() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.deliver(0, 7), None, "nothing was expected");
        assert_eq!(gaps.deliver(0, 8), None);
        let gap = gaps.deliver(0, 12).unwrap();
        assert_eq!(gap, Gap { partition: 0, first: 9, end: 12 });
        assert_eq!(gaps.deliver(0, 13), None);
        assert_eq!(gaps.deliver(0, 3), None, "the topic was created anew");
        gaps.end(0);
        assert_eq!(gaps.deliver(0, 40), None, "somebody else consumed those");
        // -1001: the group has committed nothing.
        gaps.begin(&[(1, 5), (2, -1001)]);
        assert!(gaps.deliver(1, 9).is_some());
        assert_eq!(gaps.deliver(2, 9), None);
    }

    #[test]
    fn only_what_the_log_no_longer_has_is_lost() {
        let gap = Gap { partition: 0, first: 10, end: 20 };
        assert_eq!(gap.below(0), None);
        assert_eq!(gap.below(10), None);
        assert_eq!(gap.below(14), Some(4));
        assert_eq!(gap.below(20), Some(10));
        assert_eq!(gap.below(50), Some(10), "it went on meanwhile");
    }
}
