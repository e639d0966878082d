//! Empty batches whose memory is used again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pipeline::batch::Batch;

/// The number of empty batches whose memory an idle client keeps, and the number of
/// small ones that are kept at all: the general allocator would keep the memory of many.
const MAX_IDLE: usize = 4;

/// How long a client has recycled no batch before it counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Spares {
    /// The most recently used last.
    batches: VecDeque<Batch>,
    /// The memory that they occupy, in bytes.
    bytes: usize,
    /// The size of the segments of new batches.
    segment_bytes: usize,
    /// When a batch was last recycled.
    recycled_at: Option<Instant>,
}

impl Spares {
    pub(crate) fn new(segment_bytes: usize) -> Self {
        let batches = VecDeque::with_capacity(MAX_IDLE);
        Self { batches, bytes: 0, segment_bytes, recycled_at: None }
    }

    /// Returns an empty batch.
    pub(crate) fn take(&mut self) -> Batch {
        match self.batches.pop_back() {
            Some(spare) => {
                self.bytes -= spare.resident_bytes();
                spare
            }
            None => Batch::new(self.segment_bytes),
        }
    }

    /// Keeps the memory of a settled batch, if all spares together then occupy at most
    /// `max_bytes`.
    pub(crate) fn recycle(&mut self, mut batch: Batch, max_bytes: usize, now: Instant) {
        self.recycled_at = Some(now);
        let is_wanted = batch.has_segment() || self.batches.len() < MAX_IDLE;
        let fits = self.bytes + batch.resident_bytes() <= max_bytes;
        if batch.is_reusable() && is_wanted && fits {
            batch.clear();
            self.bytes += batch.resident_bytes();
            self.batches.push_back(batch);
        }
    }

    /// Releases spares until they occupy at most `max_bytes`.
    pub(crate) fn limit(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes
            && let Some(spare) = self.batches.pop_front()
        {
            self.bytes -= spare.resident_bytes();
        }
    }

    /// Returns when the client is idle and has more spares than it needs then.
    pub(crate) fn excess_at(&self) -> Option<Instant> {
        let has_excess = self.batches.len() > MAX_IDLE || self.batches.capacity() > 64;
        Some(self.recycled_at.filter(|_| has_excess)? + IDLE_AFTER)
    }

    /// Releases what an idle client does not need.
    pub(crate) fn release_excess(&mut self) {
        let excess = self.batches.len().saturating_sub(MAX_IDLE);
        drop(self.batches.drain(..excess));
        self.batches.shrink_to_fit();
        self.bytes = self.batches.iter().map(Batch::resident_bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns settled batches whose only line has this length.
    fn batches(length: usize) -> impl Iterator<Item = Batch> {
        (0..40).map(move |_| {
            let mut batch = Batch::new(64 << 10);
            batch.push(&vec![b'x'; length], None);
            batch
        })
    }

    #[test]
    fn spare_memory_is_bounded_and_released_when_idle() {
        let now = Instant::now();
        let mut spares = Spares::new(64 << 10);
        let bytes = batches(40 << 10).next().unwrap().resident_bytes();
        batches(40 << 10).for_each(|batch| spares.recycle(batch, 20 * bytes, now));
        assert_eq!((spares.batches.len(), spares.bytes), (20, 20 * bytes));
        spares.limit(10 * bytes);
        assert_eq!(spares.batches.len(), 10);
        assert_eq!(spares.excess_at(), Some(now + IDLE_AFTER));
        spares.release_excess();
        assert_eq!((spares.batches.len(), spares.bytes), (MAX_IDLE, MAX_IDLE * bytes));
        assert_eq!(spares.excess_at(), None);
    }

    #[test]
    fn few_small_batches_are_kept() {
        let mut spares = Spares::new(64 << 10);
        batches(1000).for_each(|batch| spares.recycle(batch, usize::MAX, Instant::now()));
        assert_eq!(spares.batches.len(), MAX_IDLE);
    }
}
