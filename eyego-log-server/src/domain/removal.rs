//! The removal port: deletes entries whose retention has passed, or whose user is
//! erased.

use async_trait::async_trait;
use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, Timestamp, UserId};

use super::repository::StoreError;
use super::retention::Retention;

/// Deletes from the store that [`LogRepository`](super::repository::LogRepository)
/// and [`DeadLetters`](super::dead_letter::DeadLetters) write to.
///
/// Each call does a small amount of work, so that it does not delay storing for
/// long. A deletion is durable (on a replicated store, by a majority) before the
/// call returns.
#[async_trait]
pub trait LogRemoval: Send + Sync {
    /// Examines up to `limit` entries of `window`, in the order of (`timestamp`,
    /// `id`), and deletes those that are expired at `now`.
    ///
    /// It MUST NOT delete any other entry, nor anything that is not an event.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Repeating the call is safe.
    async fn delete_expired(
        &self,
        retention: &Retention,
        now: Timestamp,
        window: &Window,
        limit: u32,
    ) -> Result<Examined, StoreError>;

    /// Deletes up to `limit` entries of a user that were received before
    /// `received_before`, and returns their number. 0 means that no such entry is
    /// left, including those whose [`store`] call began before this one on the
    /// same store object.
    ///
    /// An entry without a time of receipt, as the legacy service wrote them, counts
    /// as received at its timestamp, or when its document was created if that is
    /// earlier.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Repeating the call is safe.
    ///
    /// [`store`]: super::repository::LogRepository::store
    async fn delete_of_user(
        &self,
        user_id: &UserId,
        received_before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// Returns the ids of up to `limit` dead letters of the user: the smallest ids
    /// after `after`, in ascending order.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn dead_letters_of_user(
        &self,
        user_id: &UserId,
        after: Option<LogId>,
        limit: u32,
    ) -> Result<Vec<LogId>, StoreError>;

    /// Returns the timestamp of the oldest entry, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Overwrites the bytes that deleted entries and dead letters left in the
    /// store's own files. A store whose files belong to another server does
    /// nothing.
    ///
    /// # Errors
    /// Returns an error if bytes may be left. Repeating the call is safe.
    async fn purge(&self) -> Result<(), StoreError>;
}

/// A range of entries in the order of (`timestamp`, `id`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Only entries with this action can be expired, so the store need not examine
    /// others. `None`: any action.
    pub action: Option<String>,
    /// Only entries after this position. `None`: from the first one.
    pub after: Option<Cursor>,
    /// Only entries before this time.
    pub before: Timestamp,
}

/// Result of examining a part of a [`Window`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examined {
    /// Number of entries that were deleted.
    pub deleted: u64,
    /// Position of the last examined entry, or `None` if the whole window is
    /// examined.
    pub next: Option<Cursor>,
}
