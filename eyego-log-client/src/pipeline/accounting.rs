//! The bookkeeping: how many events are where, and who waits for them to be
//! settled. Pure; it is locked together with the buffer, so that each look at
//! it is consistent.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::loss::{LossReason, Stats};

/// Somebody who waits for all events up to the end of an epoch.
#[derive(Debug)]
struct Waiter {
    epoch: u64,
    deadline: Instant,
    done: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) stats: Stats,
    /// Pending events of each epoch, the first of which is `first_epoch`.
    epochs: VecDeque<u64>,
    first_epoch: u64,
    waiters: Vec<Waiter>,
}

/// How an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Lost(LossReason),
}

impl Ledger {
    /// An event is in the buffer.
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

    /// Events of an earlier process are in the spool, and some are damaged.
    pub(crate) fn recover(&mut self, found: u64, damaged: u64) {
        self.stats.accepted += found + damaged;
        self.stats.recovered += found + damaged;
        self.stats.pending += found;
        self.stats.lost.add(LossReason::Damaged, damaged);
        self.epochs.push_back(found);
    }

    /// Events are in the spool alone, and no longer in memory.
    pub(crate) fn unload(&mut self, cost: usize) {
        self.stats.pending_bytes -= cost;
    }

    /// Events of the spool are in memory again.
    pub(crate) fn load(&mut self, cost: usize) {
        self.stats.pending_bytes += cost;
    }

    /// An event never got into the buffer.
    pub(crate) fn refuse(&mut self, reason: LossReason) {
        self.stats.accepted += 1;
        self.stats.lost.add(reason, 1);
    }

    /// Events that were in the buffer have met their fate.
    pub(crate) fn settle(&mut self, epoch: u64, count: u64, cost: usize, fate: Fate) {
        self.stats.pending -= count;
        self.stats.pending_bytes -= cost;
        match fate {
            Fate::Delivered => self.stats.delivered += count,
            Fate::Lost(reason) => self.stats.lost.add(reason, count),
        }
        let index = usize::try_from(epoch - self.first_epoch).unwrap_or(usize::MAX);
        if let Some(pending) = self.epochs.get_mut(index) {
            *pending -= count;
        }
        // The last one may still grow.
        while self.epochs.len() > 1 && self.epochs.front() == Some(&0) {
            self.epochs.pop_front();
            self.first_epoch += 1;
        }
        if !self.waiters.is_empty() {
            self.wake(None);
        }
    }

    /// Pending events up to the end of this epoch.
    pub(crate) fn pending_until(&self, epoch: u64) -> u64 {
        let epochs = (self.first_epoch..=epoch).zip(&self.epochs);
        epochs.map(|(_, pending)| pending).sum()
    }

    /// Answers when all up to the end of this epoch is settled, or at the
    /// deadline, if somebody calls [`expire`](Self::expire) then.
    pub(crate) fn wait(&mut self, epoch: u64, deadline: Instant) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.waiters.push(Waiter { epoch, deadline, done });
        self.wake(None);
        wait
    }

    /// When the first of those who wait gives up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiters.iter().map(|waiter| waiter.deadline).min()
    }

    /// Ends the waiting of those whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.wake(Some(now));
    }

    /// Ends all waiting: nothing will be settled any more.
    pub(crate) fn release_all(&mut self) {
        self.waiters.clear();
    }

    fn wake(&mut self, now: Option<Instant>) {
        let mut index = 0;
        while let Some(waiter) = self.waiters.get(index) {
            let is_settled = self.pending_until(waiter.epoch) == 0;
            if is_settled || now.is_some_and(|now| waiter.deadline <= now) {
                // Dropping the sender tells the same.
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
    fn who_waits_is_told_when_the_events_before_are_settled() {
        let mut ledger = Ledger::default();
        let deadline = Instant::now();
        ledger.accept(0, 10);
        ledger.accept(0, 10);
        let mut first = ledger.wait(0, deadline);
        ledger.accept(1, 10);
        let mut second = ledger.wait(1, deadline);
        ledger.settle(0, 1, 10, Fate::Delivered);
        assert!(first.try_recv().is_err());
        ledger.settle(0, 1, 10, Fate::Lost(LossReason::Expired));
        assert!(first.try_recv().is_ok());
        assert!(second.try_recv().is_err());
        assert_eq!(ledger.next_deadline(), Some(deadline));
        ledger.expire(deadline);
        assert!(second.try_recv().is_ok());
        assert_eq!(ledger.pending_until(1), 1);
        assert!(ledger.stats.is_balanced());
    }
}
