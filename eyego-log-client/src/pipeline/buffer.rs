//! The batch that is being filled and those that wait: a pure state machine,
//! with the time handed in. Who locks it, and how much fits, is decided
//! outside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::batch::{Ack, Batch};

/// Empty batches that an idle client keeps for their memory.
const SPARE: usize = 8;

/// How long nothing must have been sealed until a client is idle.
const IDLE: Duration = Duration::from_secs(10);

/// When a batch is full.
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
    spare: Vec<Batch>,
    /// What `spare` occupies, in bytes.
    spare_bytes: usize,
    /// When a spare batch came back last.
    recycled_at: Option<Instant>,
    epoch: u64,
}

impl Buffer {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            open: Batch::new(),
            sealed: VecDeque::new(),
            spare: Vec::with_capacity(SPARE),
            spare_bytes: 0,
            recycled_at: None,
            epoch: 0,
        }
    }

    /// Adds a line, and answers whether there is news for the worker: a batch
    /// is full, or its linger has begun.
    pub(crate) fn push(
        &mut self,
        line: &[u8],
        ack: Option<Ack>,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        let mut news = ack.is_some();
        if !self.open.is_empty() && self.open.bytes().len() + line.len() > self.limits.bytes {
            self.seal();
            news = true;
        }
        if self.open.is_empty() {
            self.open.opened_at = Some(now());
            self.open.epoch = self.epoch;
            news = true;
        }
        self.open.push(line, ack);
        if self.open.len() >= self.limits.events {
            self.seal();
            news = true;
        }
        news
    }

    /// Closes the open batch: what comes now goes into the next.
    pub(crate) fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut next = self.spare.pop().unwrap_or_else(Batch::new);
        self.spare_bytes -= next.capacity();
        next.reserve_like(&self.open);
        if self.sealed.len() > SPARE {
            // A backlog: memory that is not filled would be counted nowhere.
            self.open.shrink();
        }
        self.sealed.push_back(std::mem::replace(&mut self.open, next));
    }

    /// What comes after this call belongs to a new epoch; answers the old one.
    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.seal();
        let epoch = self.epoch;
        self.epoch += 1;
        epoch
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next batch to be sent: a full one, or one whose time has come.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Batch> {
        if self.sealed.is_empty() && self.due().is_some_and(|due| due <= now) {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// The oldest full batch, to be given up.
    pub(crate) fn take_oldest(&mut self) -> Option<Batch> {
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.pop_front()
    }

    /// When there is a batch to be taken; at once where somebody waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let oldest = self.sealed.front().unwrap_or(&self.open);
        let opened_at = oldest.opened_at.filter(|_| !oldest.is_empty())?;
        let is_ready = !self.sealed.is_empty() || self.open.has_acks();
        Some(if is_ready { opened_at } else { opened_at + self.limits.linger })
    }

    /// Takes back a batch that is done, for its memory, if that is not more
    /// than `room` together with what is kept already.
    pub(crate) fn recycle(&mut self, mut batch: Batch, room: usize, now: Instant) {
        if self.spare_bytes + batch.capacity() <= room {
            batch.clear();
            self.spare_bytes += batch.capacity();
            self.spare.push(batch);
            self.recycled_at = Some(now);
        }
    }

    /// Gives back the memory that an idle client does not need; answers when
    /// to call it again.
    pub(crate) fn trim(&mut self, now: Instant) -> Option<Instant> {
        let idle_at = self.recycled_at.filter(|_| self.spare.len() > SPARE)? + IDLE;
        if now < idle_at {
            return Some(idle_at);
        }
        self.spare.truncate(SPARE);
        self.spare.shrink_to_fit();
        self.spare_bytes = self.spare.iter().map(Batch::capacity).sum();
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
        assert_eq!(buffer.due(), None);
        assert!(buffer.push(b"a\n", None, || start), "the linger begins");
        assert!(!buffer.push(b"b\n", None, || start));
        assert!(buffer.take(start).is_none());
        assert!(buffer.push(b"c\n", None, || start), "full by count");
        assert_eq!(buffer.take(start).unwrap().bytes(), b"a\nb\nc\n");

        buffer.push(b"1234567\n", None, || start);
        assert!(buffer.push(b"890\n", None, || start), "full by bytes");
        assert_eq!(buffer.take(start).unwrap().bytes(), b"1234567\n");
        let later = start + Duration::from_secs(1);
        assert_eq!(buffer.due(), Some(later));
        assert!(buffer.take(start).is_none());
        assert_eq!(buffer.take(later).unwrap().bytes(), b"890\n");
        assert!(buffer.take(later).is_none());
    }

    #[test]
    fn somebody_who_waits_makes_it_due_at_once() {
        let start = Instant::now();
        let mut buffer = Buffer::new(LIMITS);
        let (ack, _wait) = tokio::sync::oneshot::channel();
        assert!(buffer.push(b"a\n", Some(ack), || start));
        assert_eq!(buffer.due(), Some(start));
        assert!(buffer.take(start).is_some());
    }

    #[test]
    fn an_epoch_ends_its_batch() {
        let mut buffer = Buffer::new(LIMITS);
        buffer.push(b"a\n", None, Instant::now);
        assert_eq!(buffer.next_epoch(), 0);
        buffer.push(b"b\n", None, Instant::now);
        assert_eq!(buffer.take_oldest().unwrap().epoch, 0);
        assert_eq!(buffer.take_oldest().unwrap().epoch, 1);
    }

    #[test]
    fn memory_is_kept_within_its_room_and_given_back_when_idle() {
        let now = Instant::now();
        let mut buffer = Buffer::new(LIMITS);
        for _ in 0..40 {
            buffer.push(b"1234567\n", None, || now);
            buffer.seal();
        }
        let batches: Vec<_> = std::iter::from_fn(|| buffer.take_oldest()).collect();
        let capacity = batches[0].capacity();
        batches.into_iter().for_each(|batch| buffer.recycle(batch, 20 * capacity, now));
        assert!((10..=20).contains(&buffer.spare.len()), "{}", buffer.spare.len());
        assert_eq!(buffer.trim(now), Some(now + IDLE));
        assert_eq!(buffer.trim(now + IDLE), None);
        assert_eq!(buffer.spare.len(), SPARE);
    }
}
