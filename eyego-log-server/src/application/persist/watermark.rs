//! How far a partition is done: the offset up to which every record is.
//!
//! Pure. Bulks end in any order; only what is done without a gap may be
//! committed, or a crash would lose what lies in the gap.

use std::collections::VecDeque;

use crate::domain::queue::Offset;

/// The watermark of one partition during one assignment.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// The slices that are not passed yet, in the order delivered.
    slices: VecDeque<Slice>,
    /// The ticket of the first of them.
    first: u64,
    /// One past the last record of the slices passed.
    passed: Option<Offset>,
}

#[derive(Debug)]
struct Slice {
    /// One past its last record.
    next_offset: Offset,
    done: bool,
}

/// Names a slice: some records that were delivered one after the other and are
/// done together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Watermark {
    /// Notes a slice that ends with the record at `last_offset`, delivered
    /// after all slices noted before.
    pub(super) fn deliver(&mut self, last_offset: Offset) -> Ticket {
        let ticket = Ticket(self.first + self.slices.len() as u64);
        self.slices.push_back(Slice { next_offset: last_offset + 1, done: false });
        ticket
    }

    /// Notes that every record of a slice is done.
    pub(super) fn complete(&mut self, ticket: Ticket) {
        let place = ticket.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(slice) = place.and_then(|place| self.slices.get_mut(place)) {
            slice.done = true;
        }
        while self.slices.front().is_some_and(|slice| slice.done) {
            self.passed = self.slices.pop_front().map(|slice| slice.next_offset).or(self.passed);
            self.first += 1;
        }
    }

    /// The offset at which consumption may go on after a crash: every record
    /// before it is done. `None` while no slice is.
    #[must_use]
    pub(super) fn next_offset(&self) -> Option<Offset> {
        self.passed
    }

    /// Whether nothing is under way.
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
    fn it_waits_for_the_gap() {
        let mut watermark = Watermark::default();
        let first = watermark.deliver(4);
        let second = watermark.deliver(9);
        watermark.complete(second);
        assert_eq!(watermark.next_offset(), None);
        watermark.complete(first);
        assert_eq!(watermark.next_offset(), Some(10));
        assert!(watermark.is_settled());
    }

    proptest! {
        /// Against the obvious model: walk all slices from the first, stop at
        /// the first that is not done.
        #[test]
        fn it_never_overtakes_a_record(
            gaps in prop::collection::vec(1i64..50, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
        ) {
            let mut watermark = Watermark::default();
            let mut last_offset = -1;
            let mut model = Vec::new();
            for gap in gaps {
                last_offset += gap;
                model.push((watermark.deliver(last_offset), last_offset, false));
            }
            for index in order {
                let at = index.index(model.len());
                // Twice for some: a second completion says nothing new.
                watermark.complete(model[at].0);
                model[at].2 = true;
                let passed = model.iter().take_while(|(_, _, done)| *done).last();
                prop_assert_eq!(watermark.next_offset(), passed.map(|(_, offset, _)| offset + 1));
                prop_assert_eq!(watermark.is_settled(), model.iter().all(|(_, _, done)| *done));
            }
        }
    }
}
