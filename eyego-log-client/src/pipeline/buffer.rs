//! The batch that is being filled, and the full batches behind it.
//!
//! The buffer is a pure state machine that receives the time as an argument.
//! The event queue locks it and decides whether an event fits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pipeline::batch::{Ack, Batch};

/// The number of empty batches whose memory an idle client keeps.
const MAX_IDLE_SPARES: usize = 8;

/// How long a client has recycled no batch before it counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// When a batch is complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    limits: BatchLimits,
    open: Batch,
    sealed: VecDeque<Batch>,
    spares: Vec<Batch>,
    /// The memory that `spares` occupy, in bytes.
    spare_bytes: usize,
    /// When a batch was last added to `spares`.
    recycled_at: Option<Instant>,
    epoch: u64,
}

impl Buffer {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            open: Batch::new(),
            sealed: VecDeque::new(),
            spares: Vec::with_capacity(MAX_IDLE_SPARES),
            spare_bytes: 0,
            recycled_at: None,
            epoch: 0,
        }
    }

    /// Adds a line. Returns whether the worker must be notified, because a
    /// batch is complete or its linger time has begun.
    pub(crate) fn push(
        &mut self,
        line: &[u8],
        ack: Option<Ack>,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        let mut must_notify = ack.is_some();
        if !self.open.is_empty() && self.open.bytes().len() + line.len() > self.limits.bytes {
            self.seal();
            must_notify = true;
        }
        if self.open.is_empty() {
            self.open.opened_at = Some(now());
            self.open.epoch = self.epoch;
            must_notify = true;
        }
        self.open.push(line, ack);
        if self.open.len() >= self.limits.events {
            self.seal();
            must_notify = true;
        }
        must_notify
    }

    /// Completes the open batch. Later events go into the next one.
    pub(crate) fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut next = self.spares.pop().unwrap_or_else(Batch::new);
        self.spare_bytes -= next.capacity();
        next.reserve_like(&self.open);
        if self.sealed.len() > MAX_IDLE_SPARES {
            // Unused memory of a backlog is not part of any limit.
            self.open.shrink();
        }
        self.sealed.push_back(std::mem::replace(&mut self.open, next));
    }

    /// Ends the current epoch and returns it. Later events belong to the next.
    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.seal();
        let epoch = self.epoch;
        self.epoch += 1;
        epoch
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Removes the next batch that is due: a complete one, or one that has
    /// lingered long enough.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Batch> {
        if self.sealed.is_empty() && self.due_at().is_some_and(|due| due <= now) {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// Removes the oldest batch, whether or not it is due.
    pub(crate) fn take_oldest(&mut self) -> Option<Batch> {
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// Returns when the next batch is due. A batch with acknowledgements does
    /// not linger.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        let oldest = self.sealed.front().unwrap_or(&self.open);
        let opened_at = oldest.opened_at.filter(|_| !oldest.is_empty())?;
        let is_ready = !self.sealed.is_empty() || self.open.has_acks();
        Some(if is_ready { opened_at } else { opened_at + self.limits.linger })
    }

    /// Keeps a settled batch so that its memory can be reused, if all spares
    /// together then occupy at most `max_bytes`.
    pub(crate) fn recycle(&mut self, mut batch: Batch, max_bytes: usize, now: Instant) {
        if self.spare_bytes + batch.capacity() <= max_bytes {
            batch.clear();
            self.spare_bytes += batch.capacity();
            self.spares.push(batch);
            self.recycled_at = Some(now);
        }
    }

    /// Releases most spares of an idle client. Returns when to call it again.
    pub(crate) fn trim(&mut self, now: Instant) -> Option<Instant> {
        let has_excess = self.spares.len() > MAX_IDLE_SPARES;
        let idle_at = self.recycled_at.filter(|_| has_excess)? + IDLE_AFTER;
        if now < idle_at {
            return Some(idle_at);
        }
        self.spares.truncate(MAX_IDLE_SPARES);
        self.spares.shrink_to_fit();
        self.spare_bytes = self.spares.iter().map(Batch::capacity).sum();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits =
        BatchLimits { events: 3, bytes: 10, linger: Duration::from_secs(1) };

    #[test]
    fn a_batch_is_due_by_count_by_bytes_and_by_time() {
        let start = Instant::now();
        let mut buffer = Buffer::new(LIMITS);
        assert_eq!(buffer.due_at(), None);
        assert!(buffer.push(b"a\n", None, || start), "the linger time begins");
        assert!(!buffer.push(b"b\n", None, || start));
        assert!(buffer.take_due(start).is_none());
        assert!(buffer.push(b"c\n", None, || start), "full by count");
        assert_eq!(buffer.take_due(start).unwrap().bytes(), b"a\nb\nc\n");

        buffer.push(b"1234567\n", None, || start);
        assert!(buffer.push(b"890\n", None, || start), "full by bytes");
        assert_eq!(buffer.take_due(start).unwrap().bytes(), b"1234567\n");
        let later = start + Duration::from_secs(1);
        assert_eq!(buffer.due_at(), Some(later));
        assert!(buffer.take_due(start).is_none());
        assert_eq!(buffer.take_due(later).unwrap().bytes(), b"890\n");
        assert!(buffer.take_due(later).is_none());
    }

    #[test]
    fn a_batch_with_an_acknowledgement_is_due_immediately() {
        let start = Instant::now();
        let mut buffer = Buffer::new(LIMITS);
        let (ack, _receiver) = tokio::sync::oneshot::channel();
        assert!(buffer.push(b"a\n", Some(ack), || start));
        assert_eq!(buffer.due_at(), Some(start));
        assert!(buffer.take_due(start).is_some());
    }

    #[test]
    fn a_new_epoch_starts_a_new_batch() {
        let mut buffer = Buffer::new(LIMITS);
        buffer.push(b"a\n", None, Instant::now);
        assert_eq!(buffer.next_epoch(), 0);
        buffer.push(b"b\n", None, Instant::now);
        assert_eq!(buffer.take_oldest().unwrap().epoch, 0);
        assert_eq!(buffer.take_oldest().unwrap().epoch, 1);
    }

    #[test]
    fn spare_memory_is_bounded_and_released_when_idle() {
        let now = Instant::now();
        let mut buffer = Buffer::new(LIMITS);
        for _ in 0..40 {
            buffer.push(b"1234567\n", None, || now);
            buffer.seal();
        }
        let batches: Vec<_> = std::iter::from_fn(|| buffer.take_oldest()).collect();
        let capacity = batches[0].capacity();
        batches.into_iter().for_each(|batch| buffer.recycle(batch, 20 * capacity, now));
        assert!((10..=20).contains(&buffer.spares.len()), "{}", buffer.spares.len());
        assert_eq!(buffer.trim(now), Some(now + IDLE_AFTER));
        assert_eq!(buffer.trim(now + IDLE_AFTER), None);
        assert_eq!(buffer.spares.len(), MAX_IDLE_SPARES);
    }
}
