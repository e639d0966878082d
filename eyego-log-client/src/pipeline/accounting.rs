//! Counts where every event is, and resolves flushes once the events that they
//! cover are settled, that is delivered or lost.
//!
//! Accounting is pure. The event queue locks it together with the buffer, so
//! every snapshot is consistent.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;

use crate::model::loss_reason::LossReason;
use crate::model::stats::Stats;
use crate::pipeline::batch::Outcome;

/// Flushes that wait for the same epoch. Dropping them resolves them.
pub(crate) type Waiters = Vec<oneshot::Sender<()>>;

/// The number of waiters of an epoch from which on cancelled ones are removed.
const MIN_CLEANUP: usize = 64;

/// Events are grouped into epochs. Each flush ends the current epoch, so it has
/// to wait only for the epochs up to its own.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    pub(crate) stats: Stats,
    /// The number of pending events in each epoch, beginning with
    /// `first_epoch`.
    epochs: VecDeque<u64>,
    first_epoch: u64,
    /// The flushes that wait for all events up to the end of an epoch.
    waiters: BTreeMap<u64, Waiters>,
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

    /// Counts events that an earlier process left in the spool. Returns their
    /// epoch.
    pub(crate) fn recover(&mut self, found: u64) -> u64 {
        self.stats.accepted += found;
        self.stats.recovered += found;
        self.stats.pending += found;
        match self.epochs.front_mut() {
            Some(pending) => *pending += found,
            None => self.epochs.push_back(found),
        }
        self.first_epoch
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

    /// Counts pending events as delivered or lost. If a damaged spool file
    /// contains more events than it was expected to, only as many as are pending
    /// are counted.
    pub(crate) fn settle(&mut self, epoch: u64, count: u64, cost: usize, outcome: &Outcome) {
        let index = epoch.checked_sub(self.first_epoch).and_then(|n| usize::try_from(n).ok());
        let count = match index.and_then(|index| self.epochs.get_mut(index)) {
            Some(pending) => {
                let count = count.min(*pending);
                *pending -= count;
                count
            }
            None => 0,
        };
        self.stats.pending -= count;
        self.stats.pending_bytes -= cost;
        match outcome {
            Outcome::Delivered => self.stats.delivered += count,
            Outcome::Lost { reason, .. } => self.stats.lost.add(*reason, count),
        }
        // The last epoch is kept because events may still be added to it.
        while self.epochs.len() > 1 && self.epochs.front() == Some(&0) {
            self.epochs.pop_front();
            self.first_epoch += 1;
        }
    }

    /// Returns the number of pending events up to the end of `epoch`.
    pub(crate) fn pending_until(&self, epoch: u64) -> u64 {
        let epochs = (self.first_epoch..=epoch).zip(&self.epochs);
        epochs.map(|(_, pending)| pending).sum()
    }

    /// Returns whether all events up to the end of `epoch` are settled.
    fn is_settled(&self, epoch: u64) -> bool {
        let nothing_pending = self.epochs.len() <= 1 && self.epochs.front().is_none_or(|n| *n == 0);
        epoch < self.first_epoch || nothing_pending
    }

    /// Returns a channel that closes once all events up to the end of `epoch`
    /// are settled and [`take_resolved`](Self::take_resolved) was called.
    pub(crate) fn wait(&mut self, epoch: u64) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        if !self.is_settled(epoch) {
            let waiters = self.waiters.entry(epoch).or_default();
            if waiters.len() >= MIN_CLEANUP && waiters.len().is_power_of_two() {
                waiters.retain(|waiter| !waiter.is_closed());
            }
            waiters.push(done);
        }
        receiver
    }

    /// Removes the flushes whose events are settled. The caller drops them
    /// outside its lock, because there can be thousands.
    pub(crate) fn take_resolved(&mut self) -> Vec<Waiters> {
        let mut resolved = Vec::new();
        while let Some((epoch, _)) = self.waiters.first_key_value()
            && self.is_settled(*epoch)
        {
            resolved.extend(self.waiters.pop_first().map(|(_, waiters)| waiters));
        }
        resolved
    }

    /// Removes all flushes because no more events will be settled.
    pub(crate) fn take_all(&mut self) -> Vec<Waiters> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[test]
    fn a_flush_resolves_when_earlier_events_are_settled() {
        let mut accounting = Accounting::default();
        let mut nothing = accounting.wait(0);
        assert_eq!(nothing.try_recv(), Err(TryRecvError::Closed));
        accounting.accept(0, 10);
        accounting.accept(0, 10);
        let mut first = accounting.wait(0);
        accounting.accept(1, 10);
        let mut second = accounting.wait(1);
        accounting.settle(0, 1, 10, &Outcome::Delivered);
        assert!(accounting.take_resolved().is_empty());
        accounting.settle(0, 1, 10, &Outcome::lost(LossReason::Expired, "timeout"));
        drop(accounting.take_resolved());
        assert_eq!(first.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(accounting.pending_until(1), 1);
        assert!(accounting.stats.is_balanced());
        accounting.settle(1, 1, 10, &Outcome::Delivered);
        drop(accounting.take_resolved());
        assert_eq!(second.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn no_more_events_are_settled_than_are_pending() {
        let mut accounting = Accounting::default();
        let epoch = accounting.recover(3);
        accounting.accept(1, 10);
        accounting.settle(epoch, 2, 0, &Outcome::Delivered);
        accounting.settle(epoch, 5, 0, &Outcome::lost(LossReason::Damaged, "damaged"));
        // The epoch is over.
        accounting.settle(epoch, 1, 0, &Outcome::Delivered);
        let stats = &accounting.stats;
        assert_eq!((stats.delivered, stats.lost.total(), stats.pending), (2, 1, 1));
        assert!(stats.is_balanced());
        accounting.settle(1, 1, 10, &Outcome::Delivered);
        assert_eq!(accounting.wait(1).try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn cancelled_flushes_are_forgotten() {
        let mut accounting = Accounting::default();
        accounting.accept(0, 10);
        (0..10_000).for_each(|_| drop(accounting.wait(0)));
        assert!(accounting.waiters[&0].len() <= 2 * MIN_CLEANUP);
    }
}
