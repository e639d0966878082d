//! The erasure port: which users are erased up to which time, durable in the store
//! that the workers write to.

use std::collections::HashMap;

use async_trait::async_trait;
use eyego_log_core::limits::DEFAULT_LIMIT;
use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, Timestamp, UserId};

use super::read::{PageItem, json_text_bytes};
use super::repository::StoreError;

/// The erasure of a user: every event of the user that was received before
/// `requested_at` is removed and never stored again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Id of the erasure.
    pub id: LogId,
    /// The user.
    pub user_id: UserId,
    /// The cut-off: events received at or after this time are kept.
    pub requested_at: Timestamp,
    /// What was removed so far.
    pub removed: Removed,
    /// When the removal was completed, or `None` while it is running.
    pub completed_at: Option<Timestamp>,
}

impl PageItem for Erasure {
    fn position(&self) -> Cursor {
        Cursor { timestamp: self.requested_at, id: self.id }
    }

    fn json_bytes(&self) -> usize {
        /// At least the size of keys, punctuation, numbers, the id and times.
        const FIXED: usize = 260;

        FIXED + json_text_bytes(self.user_id.as_str())
    }
}

/// Numbers of removed items, by place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Log entries.
    pub store: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// Erasures, kept in the store that the workers write to and equally durable.
///
/// An erasure is never deleted: while its events are in a queue, a backup or a
/// spool, it keeps them from being stored again.
#[async_trait]
pub trait Erasures: Send + Sync {
    /// Records an erasure durably. Recording the same id again changes nothing.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Recording it again is safe.
    async fn record(&self, erasure: &Erasure) -> Result<(), StoreError>;

    /// Returns the erasure with this id, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn get(&self, id: LogId) -> Result<Option<Erasure>, StoreError>;

    /// Returns the erasures that match, the latest request first.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn list(&self, query: &ErasureQuery) -> Result<Vec<Erasure>, StoreError>;

    /// Returns the latest cut-off of each erased user, whether its removal is
    /// running or completed.
    ///
    /// The result MUST contain every erasure whose [`record`](Self::record)
    /// returned before this call began. It MUST NOT wait for reads of callers.
    ///
    /// # Errors
    /// Returns an error if the list may be incomplete.
    async fn cut_offs(&self) -> Result<CutOffs, StoreError>;

    /// Adds to the numbers of removed items.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown.
    async fn add_removed(&self, id: LogId, removed: Removed) -> Result<(), StoreError>;

    /// Marks an erasure as completed. A completed one is unchanged.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Completing it again is safe.
    async fn complete(&self, id: LogId, at: Timestamp) -> Result<(), StoreError>;

    /// Acquires or renews the lease on removing, so that usually one process
    /// removes at a time. Returns whether `holder` has it. The lease ends by itself
    /// after [`LEASE_SECONDS`] without renewal.
    ///
    /// Two holders at the same time cost work but do no harm.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown.
    async fn acquire_lease(&self, holder: LogId) -> Result<bool, StoreError>;
}

/// How long a lease lasts, in seconds.
pub const LEASE_SECONDS: u32 = 30;

/// Selects erasures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureQuery {
    /// Only those that are running.
    pub only_running: bool,
    /// Only those after this position (`requested_at` and id) in the order.
    pub after: Option<Cursor>,
    /// Maximum number of erasures.
    pub limit: u32,
}

impl Default for ErasureQuery {
    /// Selects the latest erasures.
    fn default() -> Self {
        Self { only_running: false, after: None, limit: DEFAULT_LIMIT }
    }
}

/// The latest cut-off of each erased user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CutOffs(HashMap<UserId, Timestamp>);

impl CutOffs {
    /// Adds a cut-off. If the user has one, the later one applies.
    pub fn add(&mut self, user_id: UserId, cut_off: Timestamp) {
        let latest = self.0.entry(user_id).or_insert(cut_off);
        *latest = (*latest).max(cut_off);
    }

    /// Returns `true` if an event of this user that was received at this time is
    /// erased.
    #[must_use]
    pub fn cover(&self, user_id: &UserId, received_at: Timestamp) -> bool {
        self.0.get(user_id).is_some_and(|cut_off| received_at < *cut_off)
    }

    /// Returns `true` if no user is erased.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_cut_off_of_a_user_applies() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let user = |name: &str| UserId::from_stored(name).unwrap();
        let mut cut_offs = CutOffs::default();
        assert!(cut_offs.is_empty());
        cut_offs.add(user("ada"), at(5));
        cut_offs.add(user("ada"), at(9));
        cut_offs.add(user("ada"), at(7));
        assert!(cut_offs.cover(&user("ada"), at(8)));
        assert!(!cut_offs.cover(&user("ada"), at(9)), "received at the cut-off");
        assert!(!cut_offs.cover(&user("bob"), at(0)));
    }
}
