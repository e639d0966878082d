//! Settled events that wait for a hook, within a limit of memory. Those that do
//! not fit are counted.

use std::collections::VecDeque;

use crate::model::delivered::Delivered;
use crate::model::line::Lines;
use crate::model::loss::Loss;
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::Batch;
use crate::pipeline::hooks::{Hooks, is_in_hook};

/// The memory that settled events may occupy while they wait for the hook.
pub(super) const MAX_QUEUED_BYTES: usize = 8 << 20;

/// Deliveries leave room for losses, which are more important.
const MAX_QUEUED_WITH_DELIVERIES: usize = MAX_QUEUED_BYTES / 2;

/// The number of single events that are passed to the hook together.
const MAX_MERGED: usize = 500;

/// The size in bytes of the segment that holds their lines.
const MERGED_BYTES: usize = 256 << 10;

/// Settled events that are passed to a hook together.
pub(super) struct SettledEvents {
    /// `None` if the events were delivered.
    reason: Option<LossReason>,
    message: String,
    batch: Batch,
    unreadable: u64,
    /// The memory that they occupy.
    bytes: usize,
}

impl SettledEvents {
    pub(super) fn report(self, hooks: &Hooks) {
        let Self { reason, message, batch, unreadable, .. } = self;
        let lines = if batch.is_empty() { Lines::EMPTY } else { batch.lines() };
        match reason {
            Some(reason) => {
                hooks.report_loss(&Loss { reason, message: &message, lines, unreadable });
            }
            None => hooks.report_delivery(&Delivered { lines }),
        }
    }
}

#[derive(Default)]
pub(super) struct ReportQueue {
    queued: VecDeque<SettledEvents>,
    /// The memory of `queued`.
    bytes: usize,
    /// Events that the loss hook does not receive.
    pub(super) unreported: u64,
    /// Events that the delivery hook does not receive.
    pub(super) unreported_deliveries: u64,
}

impl ReportQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Adds a lost batch. Returns it if the queue is full and `is_forced` is false,
    /// or if the hook itself lost it.
    pub(super) fn push_lost(
        &mut self,
        reason: LossReason,
        message: &str,
        batch: Batch,
        is_forced: bool,
    ) -> Option<Batch> {
        let bytes = batch.resident_bytes();
        if is_in_hook() || (self.bytes + bytes > MAX_QUEUED_BYTES && !is_forced) {
            self.unreported += batch.len() as u64;
            return Some(batch);
        }
        let (reason, message) = (Some(reason), message.to_owned());
        self.push(SettledEvents { reason, message, batch, unreadable: 0, bytes });
        None
    }

    /// Adds a delivered batch. Returns it if the queue is full.
    pub(super) fn push_delivered(&mut self, batch: Batch) -> Option<Batch> {
        let bytes = batch.resident_bytes();
        if self.bytes + bytes > MAX_QUEUED_WITH_DELIVERIES {
            self.unreported_deliveries += batch.len() as u64;
            return Some(batch);
        }
        let message = String::new();
        self.push(SettledEvents { reason: None, message, batch, unreadable: 0, bytes });
        None
    }

    /// Adds one lost event, to the last ones if they were lost for the same reason.
    /// Returns whether it is to be reported separately from those.
    pub(super) fn push_line(&mut self, reason: LossReason, message: &str, line: &[u8]) -> bool {
        if is_in_hook() || self.bytes + Batch::cost_of(line.len()) > MAX_QUEUED_BYTES {
            self.unreported += 1;
            return false;
        }
        if let Some(last) = self.queued.back_mut()
            && (last.reason == Some(reason) && last.message == message)
            && (1..MAX_MERGED).contains(&last.batch.len())
            && last.batch.bytes().len() + line.len() <= MERGED_BYTES
        {
            self.bytes -= last.bytes;
            last.batch.push(line, None);
            last.bytes = last.batch.resident_bytes();
            self.bytes += last.bytes;
            return false;
        }
        let mut batch = Batch::new(MERGED_BYTES);
        batch.push(line, None);
        let bytes = batch.resident_bytes();
        let (reason, message) = (Some(reason), message.to_owned());
        self.push(SettledEvents { reason, message, batch, unreadable: 0, bytes });
        true
    }

    /// Adds the loss of events whose content can no longer be read.
    pub(super) fn push_unreadable(&mut self, reason: LossReason, message: &str, unreadable: u64) {
        let (reason, message, batch) = (Some(reason), message.to_owned(), Batch::new(0));
        self.push(SettledEvents { reason, message, batch, unreadable, bytes: 0 });
    }

    fn push(&mut self, events: SettledEvents) {
        self.bytes += events.bytes;
        self.queued.push_back(events);
    }

    /// Gives up what is queued, because nothing can report it any more.
    pub(super) fn give_up(&mut self) {
        while let Some(SettledEvents { reason, batch, unreadable, .. }) = self.pop() {
            let events = batch.len() as u64 + unreadable;
            match reason {
                Some(_) => self.unreported += events,
                None => self.unreported_deliveries += events,
            }
        }
    }

    /// Removes the oldest events.
    pub(super) fn pop(&mut self) -> Option<SettledEvents> {
        let events = self.queued.pop_front()?;
        self.bytes -= events.bytes;
        Some(events)
    }
}
