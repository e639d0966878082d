//! The batch that is being filled, and the full batches behind it.
//!
//! The buffer is a pure state machine that receives the time as an argument.
//! The event queue locks it and decides whether an event fits.

use std::time::{Duration, Instant};

use crate::pipeline::backlog::Backlog;
use crate::pipeline::batch::{Ack, Batch};
use crate::pipeline::spares::Spares;

/// When a batch is complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) linger: Duration,
}

/// What the addition of a line caused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The epoch of the event.
    pub(crate) epoch: u64,
    /// The worker must be notified, because a batch is complete or its linger
    /// time has begun.
    pub(crate) must_notify: bool,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    limits: BatchLimits,
    open: Batch,
    /// The open batch does not linger, because a caller waits for it.
    is_urgent: bool,
    sealed: Backlog,
    spares: Spares,
    epoch: u64,
    /// The epoch ends with the open batch.
    epoch_ends: bool,
    /// No batch of the current epoch was begun.
    is_epoch_empty: bool,
}

impl Buffer {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            open: Batch::new(limits.bytes),
            is_urgent: false,
            sealed: Backlog::new(),
            spares: Spares::new(limits.bytes),
            epoch: 0,
            epoch_ends: false,
            // The first epoch contains the events that were recovered.
            is_epoch_empty: false,
        }
    }

    /// Adds a line.
    pub(crate) fn push(
        &mut self,
        line: &[u8],
        ack: Option<Ack>,
        now: impl FnOnce() -> Instant,
    ) -> Pushed {
        let mut must_notify = ack.is_some();
        if !self.open.is_empty() && self.open.bytes().len() + line.len() > self.limits.bytes {
            self.seal();
            must_notify = true;
        }
        if self.open.is_empty() {
            self.open.opened_at = Some(now());
            self.open.epoch = self.epoch;
            self.is_epoch_empty = false;
            must_notify = true;
        }
        self.open.push(line, ack);
        let epoch = self.open.epoch;
        if self.open.len() >= self.limits.events {
            self.seal();
            must_notify = true;
        }
        Pushed { epoch, must_notify }
    }

    /// Completes the open batch. Later events go into the next one.
    pub(crate) fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (events, bytes) = (self.open.len(), self.open.bytes().len());
        let full = std::mem::replace(&mut self.open, Batch::new(self.limits.bytes));
        self.open = match self.sealed.push(full) {
            Some(unused) => unused,
            None => self.spares.take(),
        };
        self.open.reserve(events, bytes);
        self.is_urgent = false;
        if self.epoch_ends {
            self.begin_epoch();
        }
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.epoch_ends = false;
        self.is_epoch_empty = true;
    }

    /// Returns the last epoch of all events so far, and lets the open batch be
    /// due. Events that still join the open batch share its epoch. Otherwise, a series of
    /// calls would produce many small batches.
    pub(crate) fn end_epoch(&mut self) -> u64 {
        let epoch = self.epoch;
        if !self.open.is_empty() {
            self.is_urgent = true;
            self.epoch_ends = true;
        } else if self.is_epoch_empty {
            return epoch.saturating_sub(1);
        } else {
            self.begin_epoch();
        }
        epoch
    }

    /// Removes the next batch that is due: a complete one, or one that has
    /// lingered long enough.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Batch> {
        if self.sealed.is_empty() && self.due_at().is_some_and(|due| due <= now) {
            self.seal();
        }
        self.sealed.pop(&mut self.spares)
    }

    /// Removes the oldest batch, whether or not it is due.
    pub(crate) fn take_oldest(&mut self) -> Option<Batch> {
        if self.sealed.is_empty() {
            self.seal();
        }
        self.sealed.pop(&mut self.spares)
    }

    /// Returns when the first event of the oldest batch was added.
    pub(crate) fn oldest_at(&self) -> Option<Instant> {
        let open_at = || self.open.opened_at.filter(|_| !self.open.is_empty());
        self.sealed.oldest_at().or_else(open_at)
    }

    /// Returns when the next batch is due. A batch does not linger if a caller
    /// waits for it.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        let opened_at = self.oldest_at()?;
        let is_ready = !self.sealed.is_empty() || self.is_urgent || self.open.has_acks();
        Some(if is_ready { opened_at } else { opened_at + self.limits.linger })
    }

    /// Keeps the memory of a settled batch, if all spares together then occupy at most
    /// `max_bytes`.
    pub(crate) fn recycle(&mut self, batch: Batch, max_bytes: usize, now: Instant) {
        self.spares.recycle(batch, max_bytes, now);
    }

    /// Releases spares until they occupy at most `max_bytes`.
    pub(crate) fn limit_spares(&mut self, max_bytes: usize) {
        self.spares.limit(max_bytes);
    }

    /// Releases most spares of an idle client. Returns when to call it again.
    pub(crate) fn trim(&mut self, now: Instant) -> Option<Instant> {
        let idle_at = self.spares.excess_at()?;
        if now < idle_at {
            return Some(idle_at);
        }
        self.spares.release_excess();
        self.sealed.shrink_to_fit();
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
        assert!(buffer.push(b"a\n", None, || start).must_notify, "the linger time begins");
        assert!(!buffer.push(b"b\n", None, || start).must_notify);
        assert!(buffer.take_due(start).is_none());
        assert!(buffer.push(b"c\n", None, || start).must_notify, "full by count");
        assert_eq!(buffer.take_due(start).unwrap().bytes(), b"a\nb\nc\n");

        buffer.push(b"1234567\n", None, || start);
        assert!(buffer.push(b"890\n", None, || start).must_notify, "full by bytes");
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
        assert!(buffer.push(b"a\n", Some(ack), || start).must_notify);
        assert_eq!(buffer.due_at(), Some(start));
        assert!(buffer.take_due(start).is_some());
    }

    #[test]
    fn an_epoch_covers_all_events_before_its_end() {
        let start = Instant::now();
        let mut buffer = Buffer::new(LIMITS);
        assert_eq!(buffer.push(b"a\n", None, || start).epoch, 0);
        assert_eq!(buffer.end_epoch(), 0);
        assert_eq!(buffer.due_at(), Some(start), "the batch does not linger");
        assert_eq!(buffer.push(b"b\n", None, || start).epoch, 0, "it joins the batch");
        assert_eq!(buffer.end_epoch(), 0);
        assert_eq!(buffer.take_due(start).unwrap().len(), 2);
        assert_eq!(buffer.end_epoch(), 0, "there is no later event");
        assert_eq!(buffer.push(b"c\n", None, || start).epoch, 1);
        assert_eq!(buffer.due_at(), Some(start + LIMITS.linger));
        assert_eq!(buffer.take_oldest().unwrap().epoch, 1);
        assert_eq!(buffer.end_epoch(), 1);
        assert_eq!(buffer.push(b"d\n", None, || start).epoch, 2);
    }
}
