//! Counts where every event is, and resolves flushes once the events that they
//! cover are settled, that is delivered or lost.
//!
//! Accounting is pure. The event queue locks it together with the buffer, so
//! every snapshot is consistent.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::model::loss_reason::LossReason;
use crate::model::stats::Stats;
use crate::pipeline::batch::Outcome;

/// A flush that waits for all events up to the end of an epoch.
#[derive(Debug)]
struct Waiter {
    epoch: u64,
    deadline: Instant,
    done: oneshot::Sender<()>,
}

/// Events are grouped into epochs. Each flush ends the current epoch, so it has
/// to wait only for the epochs up to its own.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    pub(crate) stats: Stats,
    /// The number of pending events in each epoch, beginning with
    /// `first_epoch`.
    epochs: VecDeque<u64>,
    first_epoch: u64,
    waiters: Vec<Waiter>,
}

impl Accounting {
    /// Counts an event that was added to the buffer.
    pub(crate) fn accept(&mut self, epoch: u64, cost: usize) {
        self.stats.accepted += 1;
        self.stats.pending += 1;
        self.stats.pending_bytes += cost;
        let index = usize::try_from(epoch - self.first_epoch).unwrap_or(usize::MAX);
        while self.epochs.len() <= index {
            self.epochs.push_back(0);
        }
        self.epochs[index] += 1;
    }

    /// Counts events that an earlier process left in the spool.
    pub(crate) fn recover(&mut self, found: u64) {
        self.stats.accepted += found;
        self.stats.recovered += found;
        self.stats.pending += found;
        self.epochs.push_back(found);
    }

    /// Counts events that an earlier process left in the spool and that cannot
    /// be read.
    pub(crate) fn recover_lost(&mut self, reason: LossReason, events: u64) {
        self.stats.accepted += events;
        self.stats.recovered += events;
        self.stats.lost.add(reason, events);
    }

    /// Records that pending events left memory and are only in the spool.
    pub(crate) fn spill(&mut self, cost: usize) {
        self.stats.pending_bytes -= cost;
    }

    /// Records that spooled events were read back into memory.
    pub(crate) fn refill(&mut self, cost: usize) {
        self.stats.pending_bytes += cost;
    }

    /// Counts an event that was lost before it reached the buffer.
    pub(crate) fn refuse(&mut self, reason: LossReason) {
        self.stats.accepted += 1;
        self.stats.lost.add(reason, 1);
    }

    /// Counts pending events as delivered or lost.
    pub(crate) fn settle(&mut self, epoch: u64, count: u64, cost: usize, outcome: &Outcome) {
        self.stats.pending -= count;
        self.stats.pending_bytes -= cost;
        match outcome {
            Outcome::Delivered => self.stats.delivered += count,
            Outcome::Lost { reason, .. } => self.stats.lost.add(*reason, count),
        }
        let index = usize::try_from(epoch - self.first_epoch).unwrap_or(usize::MAX);
        if let Some(pending) = self.epochs.get_mut(index) {
            *pending -= count;
        }
        // The last epoch is kept because events may still be added to it.
        while self.epochs.len() > 1 && self.epochs.front() == Some(&0) {
            self.epochs.pop_front();
            self.first_epoch += 1;
        }
        if !self.waiters.is_empty() {
            self.resolve(None);
        }
    }

    /// Returns the number of pending events up to the end of `epoch`.
    pub(crate) fn pending_until(&self, epoch: u64) -> u64 {
        let epochs = (self.first_epoch..=epoch).zip(&self.epochs);
        epochs.map(|(_, pending)| pending).sum()
    }

    /// Returns a channel that resolves once all events up to the end of `epoch`
    /// are settled, or when [`expire`](Self::expire) is called after `deadline`.
    pub(crate) fn wait(&mut self, epoch: u64, deadline: Instant) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        self.waiters.push(Waiter { epoch, deadline, done });
        self.resolve(None);
        receiver
    }

    /// Returns the earliest deadline of all waiting flushes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiters.iter().map(|waiter| waiter.deadline).min()
    }

    /// Resolves the flushes whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.resolve(Some(now));
    }

    /// Resolves all flushes because no more events will be settled.
    pub(crate) fn resolve_all(&mut self) {
        self.waiters.clear();
    }

    fn resolve(&mut self, now: Option<Instant>) {
        let mut index = 0;
        while let Some(waiter) = self.waiters.get(index) {
            let is_settled = self.pending_until(waiter.epoch) == 0;
            if is_settled || now.is_some_and(|now| waiter.deadline <= now) {
                // The flush may have been cancelled.
                let _ = self.waiters.swap_remove(index).done.send(());
            } else {
                index += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_resolves_when_earlier_events_are_settled_or_its_deadline_passes() {
        let mut accounting = Accounting::default();
        let deadline = Instant::now();
        accounting.accept(0, 10);
        accounting.accept(0, 10);
        let mut first = accounting.wait(0, deadline);
        accounting.accept(1, 10);
        let mut second = accounting.wait(1, deadline);
        accounting.settle(0, 1, 10, &Outcome::Delivered);
        assert!(first.try_recv().is_err());
        accounting.settle(0, 1, 10, &Outcome::lost(LossReason::Expired, "timeout"));
        assert!(first.try_recv().is_ok());
        assert!(second.try_recv().is_err());
        assert_eq!(accounting.next_deadline(), Some(deadline));
        accounting.expire(deadline);
        assert!(second.try_recv().is_ok());
        assert_eq!(accounting.pending_until(1), 1);
        assert!(accounting.stats.is_balanced());
    }
}
