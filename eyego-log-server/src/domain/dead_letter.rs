//! The dead-letter port: records that cannot be stored, kept with the reason.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::limits::DEFAULT_LIMIT;
use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{LogId, Timestamp};

use super::position::{Offset, Partition};
use super::read::{Page, PageItem, ReadError, ReadMemory, json_text_bytes};
use super::repository::StoreError;

/// Maximum size of each text of a dead letter, in bytes. The rest is not kept.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

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
    /// User id, if it is readable. Erasures find dead letters by it.
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

impl PageItem for DeadLetterSummary {
    fn position(&self) -> Cursor {
        Cursor { timestamp: self.failed_at, id: self.id }
    }

    fn json_bytes(&self) -> usize {
        /// At least the size of keys, punctuation, numbers, the id and times.
        const FIXED: usize = 320;

        let texts = [self.user_id.as_ref(), Some(&self.topic), Some(&self.code)];
        let texts = texts.into_iter().chain([Some(&self.message)]).flatten();
        FIXED + texts.map(|text| json_text_bytes(text)).sum::<usize>()
    }
}

/// Returns the beginning of a text, at most `max_bytes` long.
#[must_use]
pub fn beginning(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Dead letters, kept beside the log entries and equally durable.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Stores a dead letter durably.
    ///
    /// If one with the same id exists, its code, message and time are replaced
    /// and its attempts become the larger of both numbers. Its bytes and
    /// position are unchanged. Texts are cut to [`MAX_TEXT_BYTES`].
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Storing it again is safe.
    async fn put(&self, dead_letter: &DeadLetter) -> Result<(), StoreError>;

    /// Returns the page of dead letters that match, sorted by (`failed_at`, `id`)
    /// in the query's order, without the records' bytes. The page is bounded like
    /// that of [`LogRepository::find`](super::repository::LogRepository::find).
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query in time.
    async fn list(
        &self,
        query: &DeadLetterQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Page<DeadLetterSummary>, ReadError>;

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
