//! Events that the server refused for now while it accepted others of the same
//! batch, such as those of one user whose quota is used up.
//!
//! They are collected into full batches and retried one request at a time, with
//! pauses that grow until the server accepts some of them. All other events flow
//! on meanwhile.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pipeline::batch::Batch;

#[derive(Debug, Default)]
pub(crate) struct Refused {
    batches: VecDeque<Batch>,
    /// The memory of `batches`, in bytes.
    bytes: usize,
    /// The number of attempts in a row in which nothing was accepted.
    failures: u32,
    due_at: Option<Instant>,
    last_attempt: Option<Instant>,
    is_in_flight: bool,
}

impl Refused {
    /// Returns the number of events that wait here.
    pub(crate) fn events(&self) -> u64 {
        self.batches.iter().map(|batch| batch.len() as u64).sum()
    }

    /// Returns the memory that they occupy.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds refused events. They join the last batch if possible. If the last
    /// attempt of refused events failed as well, or if it begins, the next
    /// attempt is made after `delay`, which receives the number of failures.
    pub(crate) fn add(
        &mut self,
        batch: Batch,
        max_events: usize,
        now: Instant,
        delay: impl FnOnce(u32) -> Duration,
    ) {
        if self.due_at.is_none() {
            self.failures = self.failures.saturating_add(1);
            self.due_at = Some(now + delay(self.failures));
        }
        self.bytes += batch.cost();
        let rest = match self.batches.back_mut() {
            Some(last) => last.merge(batch, max_events),
            None => Some(batch),
        };
        self.batches.extend(rest);
    }

    /// Removes the next batch to send, if it is time.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Batch> {
        if !self.is_due(now) {
            return None;
        }
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.cost();
        self.is_in_flight = true;
        self.last_attempt = Some(now);
        self.due_at = None;
        Some(batch)
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.wake_at().is_some_and(|due| due <= now)
    }

    /// Records that the request with the batch from
    /// [`take_due`](Self::take_due) has ended. If the server accepted some of
    /// its events, the next batch is due immediately.
    pub(crate) fn end_attempt(&mut self, has_accepted: bool, now: Instant) {
        self.is_in_flight = false;
        if has_accepted {
            self.failures = 0;
            self.due_at = (!self.batches.is_empty()).then_some(now);
        } else if self.due_at.is_none() && !self.batches.is_empty() {
            self.due_at = Some(now);
        }
    }

    /// Makes the next batch due, but no sooner than `interval` after the last attempt.
    pub(crate) fn hurry(&mut self, interval: Duration, now: Instant) {
        let earliest = self.last_attempt.map_or(now, |last| now.max(last + interval));
        self.due_at = self.due_at.map(|due| due.min(earliest));
    }

    /// Returns when the next batch is due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.due_at.filter(|_| !self.is_in_flight && !self.batches.is_empty())
    }

    /// Removes the oldest batch if all together occupy more than `max_bytes`.
    /// Batches that are also in the spool stay.
    pub(crate) fn take_excess(&mut self, max_bytes: usize) -> Option<Batch> {
        if self.bytes <= max_bytes || self.batches.front()?.segment.is_some() {
            return None;
        }
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.cost();
        Some(batch)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.batches.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }

    /// Removes the batches for which `is_expired` is true.
    pub(crate) fn take_expired(&mut self, is_expired: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        if !self.batches.iter().any(&is_expired) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.batches);
        let (expired, rest) = all.into_iter().partition::<Vec<_>, _>(is_expired);
        self.bytes = rest.iter().map(Batch::cost).sum();
        self.batches = rest.into();
        expired
    }

    /// Removes all batches.
    pub(crate) fn drain(&mut self) -> VecDeque<Batch> {
        self.bytes = 0;
        self.due_at = None;
        self.is_in_flight = false;
        std::mem::take(&mut self.batches)
    }
}
