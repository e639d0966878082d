//! The dead-letter port: records that cannot be stored, kept with the reason.

use async_trait::async_trait;
use eyego_log_core::limits::DEFAULT_LIMIT;
use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{LogId, Timestamp};

use super::position::{Offset, Partition};
use super::repository::{ReadError, StoreError};

/// A record that cannot be stored, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Everything except the record's bytes.
    pub summary: DeadLetterSummary,
    /// The record's bytes as they were in the queue.
    pub raw: Vec<u8>,
}

/// A dead letter without the record's bytes, which can be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSummary {
    /// Id of the event, or an id derived from the record's position if the
    /// record has no readable id.
    pub id: LogId,
    /// Full size of the record in bytes, if the store could keep only its
    /// beginning.
    pub truncated_from: Option<u64>,
    /// User id, if it is readable.
    pub user_id: Option<String>,
    /// Topic the record was in.
    pub topic: String,
    /// Partition the record was in.
    pub partition: Partition,
    /// Offset of the record within its partition.
    pub offset: Offset,
    /// When the queue accepted the record.
    pub queued_at: Timestamp,
    /// Machine-readable reason it cannot be stored.
    pub code: String,
    /// Human-readable reason it cannot be stored.
    pub message: String,
    /// Number of attempts to store it, including replays.
    pub attempts: u32,
    /// Time of the last attempt.
    pub failed_at: Timestamp,
}

/// Dead letters, kept beside the log entries and equally durable.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Stores a dead letter durably.
    ///
    /// If one with the same id exists, its code, message and time are replaced
    /// and its attempts become the larger of both numbers. Its bytes and
    /// position are unchanged.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Storing it again is safe.
    async fn put(&self, dead_letter: &DeadLetter) -> Result<(), StoreError>;

    /// Returns the dead letters that match, sorted by (`failed_at`, `id`) in the
    /// query's order, without the records' bytes.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetterSummary>, ReadError>;

    /// Returns the dead letter with this id, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn get(&self, id: LogId) -> Result<Option<DeadLetter>, ReadError>;

    /// Removes a dead letter. Removing an id that does not exist succeeds.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Removing it again is safe.
    async fn remove(&self, id: LogId) -> Result<(), StoreError>;

    /// Counts the dead letters, optionally only those with this code.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn count(&self, code: Option<&str>) -> Result<u64, ReadError>;
}

/// Selects dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Only dead letters with this code.
    pub code: Option<String>,
    /// Only failures at or after this time.
    pub from: Option<Timestamp>,
    /// Only failures before this time.
    pub to: Option<Timestamp>,
    /// Only dead letters after this position (`failed_at` and id) in the order.
    pub after: Option<Cursor>,
    /// Order by time of failure.
    pub order: Order,
    /// Maximum number of dead letters.
    pub limit: u32,
}

impl Default for DeadLetterQuery {
    /// Selects the latest dead letters.
    fn default() -> Self {
        Self {
            code: None,
            from: None,
            to: None,
            after: None,
            order: Order::Descending,
            limit: DEFAULT_LIMIT,
        }
    }
}
