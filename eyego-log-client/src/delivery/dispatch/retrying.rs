//! Batches that are retried, each at its own time.
//!
//! Some failed although the server accepted others, because of an event in them. There
//! can be very many of those, because they are split until such events are alone.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pipeline::batch::Batch;

/// A batch that has failed this often although the server accepted others is split.
pub(super) const SPLIT_AFTER: u32 = 3;

/// While this many batches wait, none is split.
const MAX_SPLIT: usize = 4000;

/// Of the batches that fail by themselves, at most this many are retried for a caller. If
/// one of them is accepted, all others are retried.
const MAX_HURRIED: usize = 16;

#[derive(Debug)]
struct Retry {
    due: Instant,
    failed_at: Instant,
    batch: Batch,
}

#[derive(Debug, Default)]
pub(super) struct Retrying {
    /// The oldest failure is first.
    retries: VecDeque<Retry>,
    /// When batches that fail by themselves were last retried for a caller.
    own_hurried_at: Option<Instant>,
}

impl Retrying {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.retries.iter().map(|retry| &retry.batch)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.retries.iter_mut().map(|retry| &mut retry.batch)
    }

    /// Returns the batches that failed although the server accepted others.
    pub(super) fn own_failures(&self) -> impl Iterator<Item = &Batch> {
        self.iter().filter(|batch| batch.has_own_failures())
    }

    /// Adds a batch that has failed now.
    pub(super) fn push(&mut self, batch: Batch, due: Instant, now: Instant) {
        self.retries.push_back(Retry { due, failed_at: now, batch });
    }

    /// Adds a batch that has failed now, in halves if it has failed by itself so often that
    /// one of its events is probably the reason. Returns the batch otherwise.
    ///
    /// The halves are due at `due`, so that the server has probably accepted something
    /// before.
    pub(super) fn split(&mut self, batch: Batch, due: Instant, now: Instant) -> Option<Batch> {
        if batch.own_failures < SPLIT_AFTER || batch.len() < 2 || self.retries.len() >= MAX_SPLIT {
            return Some(batch);
        }
        let middle = batch.len() / 2;
        for mut half in batch.split(2, |index| usize::from(index >= middle)) {
            half.attempts = 0;
            self.push(half, due, now);
        }
        None
    }

    /// Returns when the next batch is due. `with_own_failures` tells whether those that
    /// failed by themselves count.
    pub(super) fn due_at(&self, with_own_failures: bool) -> Option<Instant> {
        let retries = self.retries.iter();
        let allowed = retries.filter(|retry| with_own_failures || !retry.batch.has_own_failures());
        allowed.map(|retry| retry.due).min()
    }

    /// Removes a batch that is due: of several, the one that most likely succeeds.
    pub(super) fn take_due(&mut self, with_own_failures: bool, now: Instant) -> Option<Batch> {
        let due = self.retries.iter().enumerate().filter(|(_, Retry { due, batch, .. })| {
            *due <= now && (with_own_failures || !batch.has_own_failures())
        });
        let (index, _) = due.min_by_key(|(_, retry)| retry.batch.attempts)?;
        self.retries.remove(index).map(|retry| retry.batch)
    }

    /// Makes batches due for a caller, but none sooner than `interval` after its last
    /// attempt.
    pub(super) fn hurry(&mut self, interval: Duration, now: Instant) {
        let can_hurry_own = self.own_hurried_at.is_none_or(|at| at + interval <= now);
        let mut own_left = if can_hurry_own { MAX_HURRIED } else { 0 };
        for Retry { due, failed_at, batch } in &mut self.retries {
            if batch.has_own_failures() {
                if own_left == 0 {
                    continue;
                }
                own_left -= 1;
                self.own_hurried_at = Some(now);
            }
            *due = now.max(*failed_at + interval).min(*due);
        }
    }

    /// Makes all batches due after a pause that depends on how often they failed by
    /// themselves.
    pub(super) fn resume(&mut self, mut pause: impl FnMut(u32) -> Duration, now: Instant) {
        for Retry { due, batch, .. } in &mut self.retries {
            *due = (now + pause(batch.own_failures)).min(*due);
        }
    }

    /// Removes the batch that has failed most often by itself, if all such batches occupy
    /// more than `max_bytes`. Batches that are also in the spool stay.
    pub(super) fn take_excess(&mut self, max_bytes: usize) -> Option<Batch> {
        let own =
            self.retries.iter().enumerate().filter(|(_, Retry { batch, .. })| {
                batch.has_own_failures() && batch.segment.is_none()
            });
        if own.clone().map(|(_, retry)| retry.batch.cost()).sum::<usize>() <= max_bytes {
            return None;
        }
        let (index, _) = own.rev().max_by_key(|(_, retry)| retry.batch.own_failures)?;
        self.retries.remove(index).map(|retry| retry.batch)
    }

    /// Removes the batches for which `is_expired` is true.
    pub(super) fn take_expired(&mut self, is_expired: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        let all = std::mem::take(&mut self.retries);
        let is_expired = |retry: &Retry| is_expired(&retry.batch);
        let (expired, rest) = all.into_iter().partition::<Vec<_>, _>(is_expired);
        self.retries = rest.into();
        expired.into_iter().map(|retry| retry.batch).collect()
    }

    /// Removes all batches.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch> {
        std::mem::take(&mut self.retries).into_iter().map(|retry| retry.batch)
    }
}
