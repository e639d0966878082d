//! The only way in which the use cases store events: expired and erased ones are
//! skipped.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use eyego_log_core::{LogEntry, Timestamp};

use super::origin;
use super::tombstones::Tombstones;
use crate::domain::dead_letter::DeadLetter;
use crate::domain::erasure::CutOffs;
use crate::domain::repository::{LogRepository, StoreError, StoreOutcome};
use crate::domain::retention::Retention;

/// Stores events, except those that retention or an erasure forbids.
#[derive(Clone)]
pub struct GuardedStore {
    repository: Arc<dyn LogRepository>,
    tombstones: Arc<Tombstones>,
    retention: Arc<Retention>,
}

impl fmt::Debug for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedStore").field("retention", &self.retention).finish_non_exhaustive()
    }
}

/// The reason a record is not stored although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::application) enum SkipReason {
    /// The record has no value.
    NoValue,
    /// The event is older than its retention.
    Expired,
    /// The user was erased after the event was received.
    Erased,
}

/// Outcome of offering one entry to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::application) enum Offered {
    /// The store accepted or rejected it.
    Store(StoreOutcome),
    /// It must not be stored.
    Skipped(SkipReason),
}

impl GuardedStore {
    /// Creates a guard in front of `repository`.
    #[must_use]
    pub fn new(
        repository: Arc<dyn LogRepository>,
        tombstones: Arc<Tombstones>,
        retention: Arc<Retention>,
    ) -> Self {
        Self { repository, tombstones, retention }
    }

    /// Stores entries like [`LogRepository::store`] and returns one outcome per
    /// entry, in their order.
    ///
    /// # Errors
    /// Returns an error if the outcome of every entry is unknown, or nothing may be
    /// stored because the list of erased users is too old.
    pub(in crate::application) async fn store(
        &self,
        entries: &[LogEntry],
    ) -> Result<Vec<Offered>, StoreError> {
        let cut_offs = self.tombstones.current().await?;
        let skipped = self.skipped(&cut_offs, entries, SystemTime::now().into());
        if skipped.is_empty() {
            let outcomes = self.repository.store(entries).await?;
            return Ok(outcomes.into_iter().map(Offered::Store).collect());
        }
        let is_kept = |index: &usize| skipped.binary_search_by_key(index, |(at, _)| *at).is_err();
        let kept: Vec<_> =
            (0..entries.len()).filter(is_kept).map(|index| entries[index].clone()).collect();
        let mut outcomes =
            if kept.is_empty() { Vec::new() } else { self.repository.store(&kept).await? }
                .into_iter();
        let mut skipped = skipped.into_iter().peekable();
        (0..entries.len())
            .map(|index| match skipped.next_if(|(at, _)| *at == index) {
                Some((_, reason)) => Ok(Offered::Skipped(reason)),
                None => outcomes.next().map(Offered::Store).ok_or_else(|| {
                    StoreError::Transient("the store returned too few outcomes".to_owned())
                }),
            })
            .collect()
    }

    /// Returns the entries to skip, with their index, in order.
    fn skipped(
        &self,
        cut_offs: &CutOffs,
        entries: &[LogEntry],
        now: Timestamp,
    ) -> Vec<(usize, SkipReason)> {
        let may_expire = !self.retention.is_unlimited();
        if cut_offs.is_empty() && !may_expire {
            return Vec::new();
        }
        let reason = |entry: &LogEntry| {
            let received_at = entry.received_at.unwrap_or(entry.timestamp);
            if cut_offs.cover(&entry.user_id, received_at) {
                return Some(SkipReason::Erased);
            }
            let is_expired = may_expire
                && self.retention.is_expired(entry.action.as_str(), entry.timestamp, now);
            is_expired.then_some(SkipReason::Expired)
        };
        let skipped = entries.iter().enumerate();
        skipped.filter_map(|(index, entry)| Some((index, reason(entry)?))).collect()
    }

    /// Returns whether a dead letter must not be written, because its user was
    /// erased after the event was received.
    ///
    /// # Errors
    /// Returns an error if the list of erased users is too old.
    pub(in crate::application) async fn is_erased(
        &self,
        dead_letter: &DeadLetter,
    ) -> Result<bool, StoreError> {
        let cut_offs = self.tombstones.current().await?;
        if cut_offs.is_empty() {
            return Ok(false);
        }
        let (user_id, received_at) = origin::of(dead_letter);
        Ok(user_id.is_some_and(|user_id| cut_offs.cover(&user_id, received_at)))
    }
}
