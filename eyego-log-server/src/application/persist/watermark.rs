//! The watermark of a partition: the offset before which every record is settled.
//!
//! Bulks complete in any order, but only a range without gaps can be committed.
//! Otherwise a crash would lose the records in the gap. This module does no I/O.

use std::collections::VecDeque;

use crate::domain::position::Offset;

/// The watermark of one partition during one assignment.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// Slices above the watermark, in delivery order.
    slices: VecDeque<Slice>,
    /// Ticket of the first slice.
    first: u64,
    /// One past the last record below the watermark.
    next_offset: Option<Offset>,
}

#[derive(Debug)]
struct Slice {
    /// One past the last record of the slice.
    next_offset: Offset,
    is_settled: bool,
}

/// Identifies a slice: consecutively delivered records that are settled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Watermark {
    /// Adds a slice that ends with the record at `last_offset`, delivered after
    /// all slices added before.
    pub(super) fn add(&mut self, last_offset: Offset) -> Ticket {
        let ticket = Ticket(self.first + self.slices.len() as u64);
        self.slices.push_back(Slice { next_offset: last_offset + 1, is_settled: false });
        ticket
    }

    /// Marks a slice as settled. Settling it again has no effect.
    pub(super) fn settle(&mut self, ticket: Ticket) {
        let index = ticket.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(slice) = index.and_then(|index| self.slices.get_mut(index)) {
            slice.is_settled = true;
        }
        while let Some(slice) = self.slices.front().filter(|slice| slice.is_settled) {
            self.next_offset = Some(slice.next_offset);
            self.slices.pop_front();
            self.first += 1;
        }
    }

    /// Returns the offset at which consumption can resume after a crash, or
    /// `None` until the first slice is settled.
    #[must_use]
    pub(super) fn next_offset(&self) -> Option<Offset> {
        self.next_offset
    }

    /// Returns `true` if every slice is settled.
    #[must_use]
    pub(super) fn is_settled(&self) -> bool {
        self.slices.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_holds_the_watermark_back() {
        let mut watermark = Watermark::default();
        let first = watermark.add(4);
        let second = watermark.add(9);
        watermark.settle(second);
        assert_eq!(watermark.next_offset(), None);
        watermark.settle(first);
        assert_eq!(watermark.next_offset(), Some(10));
        assert!(watermark.is_settled());
    }

    proptest! {
        /// Compares with a model that walks all slices up to the first unsettled one.
        #[test]
        fn the_watermark_never_passes_an_unsettled_record(
            gaps in prop::collection::vec(1i64..50, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
        ) {
            let mut watermark = Watermark::default();
            let mut last_offset = -1;
            let mut model = Vec::new();
            for gap in gaps {
                last_offset += gap;
                model.push((watermark.add(last_offset), last_offset, false));
            }
            for index in order {
                let at = index.index(model.len());
                // Some indexes repeat, so some slices are settled twice.
                watermark.settle(model[at].0);
                model[at].2 = true;
                let settled = model.iter().take_while(|(_, _, settled)| *settled).last();
                prop_assert_eq!(watermark.next_offset(), settled.map(|(_, offset, _)| offset + 1));
                prop_assert_eq!(watermark.is_settled(), model.iter().all(|(_, _, settled)| *settled));
            }
        }
    }
}
