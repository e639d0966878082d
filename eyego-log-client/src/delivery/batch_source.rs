//! Decides which batch is sent next: one from the event queue or, with a spool,
//! one that went through the spool.
//!
//! With a spool, every batch is written to disk as soon as it is due, whether or
//! not the server is reachable. While the server keeps up, the batch is then
//! sent from memory. When too many batches are waiting in memory, later ones are
//! kept only on disk and read back when their turn comes. Batches are therefore
//! sent in the order in which they were written, those of an earlier process
//! first.
//!
//! A spool that is full or cannot be written does not stop delivery. Batches
//! that were not spooled wait in memory and are sent after all spooled ones. A
//! batch whose write failed, or whose file was deleted, is written again after a
//! pause and when the client ends.
//!
//! The source owns the spool and nothing else: the worker hands it batches and
//! applies the [`Effect`]s that it returns.

mod effect;
mod spooling;

use std::time::Instant;

pub(crate) use crate::delivery::batch_source::effect::{Effect, Next, Remaining};
use crate::delivery::batch_source::spooling::Spooling;
use crate::pipeline::batch::Batch;
use crate::spool::{Extent, Spool};

#[derive(Debug)]
pub(crate) struct BatchSource {
    spooling: Option<Spooling>,
}

impl BatchSource {
    /// Creates a source without a spool.
    pub(crate) fn from_memory() -> Self {
        Self { spooling: None }
    }

    /// `found` is what an earlier process left in the spool, and belongs to `epoch`.
    pub(crate) fn from_spool(
        spool: Spool,
        found: Extent,
        epoch: u64,
        max_batch_bytes: usize,
        max_buffer_bytes: usize,
    ) -> Self {
        let spooling = Spooling::new(spool, found, epoch, max_batch_bytes, max_buffer_bytes);
        Self { spooling: Some(spooling) }
    }

    /// Returns the spool's size in bytes, or `None` without a spool.
    pub(crate) fn spool_bytes(&self) -> Option<u64> {
        self.spooling.as_ref().map(Spooling::spool_bytes)
    }

    /// Does what is due: syncs the spool, gives up events that are too old, and
    /// writes again after a failure.
    pub(crate) fn maintain(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(spooling) = &mut self.spooling {
            spooling.maintain(now, &mut effects);
        }
        effects
    }

    /// Makes a last attempt to write batches that are not on disk, before
    /// [`close`](Self::close).
    pub(crate) fn prepare_to_close(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(spooling) = &mut self.spooling {
            spooling.prepare_to_close(now, &mut effects);
        }
        effects
    }

    /// Returns whether due batches must be passed to [`spool`](Self::spool).
    pub(crate) fn accepts_batches(&self) -> bool {
        self.spooling.as_ref().is_some_and(Spooling::accepts_batches)
    }

    /// Returns whether the spool has no room for another batch.
    pub(crate) fn is_spool_full(&self) -> bool {
        self.spooling.as_ref().is_some_and(|spooling| !spooling.has_room())
    }

    pub(crate) fn is_spool_failing(&self) -> bool {
        self.spooling.as_ref().is_some_and(Spooling::is_failing)
    }

    /// Writes a batch to the spool. Requires that
    /// [`accepts_batches`](Self::accepts_batches) is true.
    pub(crate) fn spool(&mut self, batch: Batch, now: Instant) -> Option<Effect> {
        self.spooling.as_mut()?.write(batch, now)
    }

    /// Returns where the next batch comes from. `pending_bytes` is the buffer
    /// memory in use.
    pub(crate) fn next(&mut self, pending_bytes: usize, now: Instant) -> (Next, Vec<Effect>) {
        match &mut self.spooling {
            None => (Next::Queue, Vec::new()),
            Some(spooling) => spooling.next(pending_bytes, now),
        }
    }

    /// Returns when there is something to do. `due_at` is when a batch in the
    /// event queue is due, and `can_send_at` maps that to the time at which the
    /// dispatcher can send it.
    pub(crate) fn wake_at(
        &self,
        due_at: Option<Instant>,
        pending_bytes: usize,
        now: Instant,
        can_send_at: impl Fn(Instant) -> Option<Instant>,
    ) -> Option<Instant> {
        match &self.spooling {
            None => due_at.and_then(can_send_at),
            Some(spooling) => spooling.wake_at(due_at, pending_bytes, now, can_send_at),
        }
    }

    /// Records that events from a spool file are settled.
    pub(crate) fn settle(&mut self, segment: Option<u64>, events: u64) {
        if let (Some(segment), Some(spooling)) = (segment, &mut self.spooling) {
            spooling.settle(segment, events);
        }
    }

    /// Closes the spool, which unlocks its directory, and returns what was not
    /// settled. `batches` are those that were handed out; they are written to the
    /// spool unless they are on disk.
    pub(crate) fn close(&mut self, batches: Vec<Batch>, now: Instant) -> Remaining {
        match self.spooling.take() {
            Some(spooling) => spooling.close(batches, now),
            None => Remaining { unspooled: batches, ..Remaining::default() },
        }
    }
}

#[cfg(test)]
#[cfg(feature = "spool")]
mod tests;
