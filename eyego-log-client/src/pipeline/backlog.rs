//! Complete batches that wait to be sent, oldest first.
//!
//! Small batches occupy memory of the general allocator, which would keep it after
//! a long backlog (ADR 0028). Those of a backlog are therefore moved to segments that
//! they share, and copied out again when their turn comes.

use std::collections::VecDeque;
use std::time::Instant;

use crate::pipeline::batch::Batch;
use crate::pipeline::spares::Spares;

/// The number of complete batches from which on they are a backlog.
const BACKLOG: usize = 8;

/// The size of a shared segment, in bytes.
const SHARED_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Backlog {
    entries: VecDeque<Entry>,
    /// The number of batches.
    len: usize,
}

#[derive(Debug)]
enum Entry {
    Batch(Batch),
    Shared(Shared),
}

/// Small batches in one segment.
#[derive(Debug)]
struct Shared {
    lines: Batch,
    parts: VecDeque<Part>,
    /// The number of lines that were taken out.
    taken: usize,
}

/// A batch in a shared segment.
#[derive(Debug)]
struct Part {
    events: usize,
    epoch: u64,
    opened_at: Option<Instant>,
}

impl Backlog {
    pub(crate) const fn new() -> Self {
        Self { entries: VecDeque::new(), len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns when the first event of the oldest batch was added.
    pub(crate) fn oldest_at(&self) -> Option<Instant> {
        match self.entries.front()? {
            Entry::Batch(batch) => batch.opened_at,
            Entry::Shared(shared) => shared.parts.front()?.opened_at,
        }
    }

    /// Adds a batch. If its content was moved to memory that fits better, returns
    /// an empty batch with the other memory.
    pub(crate) fn push(&mut self, mut batch: Batch) -> Option<Batch> {
        self.len += 1;
        if self.len <= BACKLOG {
            self.entries.push_back(Entry::Batch(batch));
            return None;
        }
        if !batch.is_small() {
            let unused = batch.compact();
            self.entries.push_back(Entry::Batch(batch));
            return unused;
        }
        let part = Part { events: batch.len(), epoch: batch.epoch, opened_at: batch.opened_at };
        let has_room = match self.entries.back() {
            Some(Entry::Shared(last)) => {
                last.lines.bytes().len() + batch.bytes().len() <= SHARED_BYTES
            }
            _ => false,
        };
        if !has_room {
            let mut lines = Batch::new(SHARED_BYTES);
            lines.reserve(batch.len(), SHARED_BYTES);
            self.entries.push_back(Entry::Shared(Shared {
                lines,
                parts: VecDeque::new(),
                taken: 0,
            }));
        }
        if let Some(Entry::Shared(last)) = self.entries.back_mut() {
            last.lines.append(&mut batch);
            last.parts.push_back(part);
        }
        Some(batch)
    }

    /// Removes the oldest batch. `spares` has memory for one whose memory is shared.
    pub(crate) fn pop(&mut self, spares: &mut Spares) -> Option<Batch> {
        let batch = match self.entries.pop_front()? {
            Entry::Batch(batch) => batch,
            Entry::Shared(mut shared) => {
                let Part { events, epoch, opened_at } = shared.parts.pop_front()?;
                let mut batch = spares.take();
                shared.lines.copy_lines(shared.taken..shared.taken + events, &mut batch);
                shared.taken += events;
                (batch.epoch, batch.opened_at) = (epoch, opened_at);
                if !shared.parts.is_empty() {
                    self.entries.push_front(Entry::Shared(shared));
                }
                batch
            }
        };
        self.len -= 1;
        Some(batch)
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::pipeline::batch::Acknowledgement;

    proptest! {
        /// Batches come out as they were put in, with their acknowledgements,
        /// whatever their size.
        #[test]
        fn batches_come_out_in_order(
            steps in prop::collection::vec((1_usize..40, 1_usize..3000, 0_u8..3), 1..120),
        ) {
            let mut backlog = Backlog::new();
            let mut expected = VecDeque::new();
            let now = Instant::now();
            let check = |backlog: &mut Backlog, expected: &mut VecDeque<_>| {
                let Some((bytes, epoch, mut receiver)): Option<(Vec<u8>, u64, oneshot::Receiver<_>)> =
                    expected.pop_front() else { return };
                let mut batch = backlog.pop(&mut Spares::new(512 << 10)).unwrap();
                assert_eq!((batch.bytes(), batch.epoch), (&bytes[..], epoch));
                assert_eq!(batch.opened_at, Some(now));
                assert_eq!(batch.lines().iter().map(<[u8]>::len).sum::<usize>(), bytes.len());
                batch.acknowledge(&Acknowledgement::Delivered);
                assert!(receiver.try_recv().is_ok());
            };
            for (epoch, (events, length, pops)) in (0..).zip(steps) {
                let mut batch = Batch::new(512 << 10);
                let (ack, receiver) = oneshot::channel();
                let mut ack = Some(ack);
                for n in 0..events {
                    let mut line = vec![b'0' + u8::try_from(n % 10).unwrap(); length];
                    line.push(b'\n');
                    batch.push(&line, ack.take_if(|_| n == events / 2));
                }
                (batch.epoch, batch.opened_at) = (epoch, Some(now));
                expected.push_back((batch.bytes().to_vec(), epoch, receiver));
                if let Some(unused) = backlog.push(batch) {
                    assert!(unused.is_empty());
                }
                (1..pops).for_each(|_| check(&mut backlog, &mut expected));
            }
            while !expected.is_empty() {
                prop_assert_eq!(backlog.oldest_at(), Some(now));
                check(&mut backlog, &mut expected);
            }
            prop_assert!(backlog.is_empty() && backlog.pop(&mut Spares::new(0)).is_none());
        }
    }
}
