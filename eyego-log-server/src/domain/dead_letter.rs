//! The port of the dead letters: records that could not be stored, kept with
//! their reason.

use async_trait::async_trait;
use eyego_log_core::limits::DEFAULT_LIMIT;
use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{LogId, Timestamp};

use super::queue::{Offset, Partition};
use super::repository::{ReadError, StoreError};

/// A record that could not be stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// All but its bytes.
    pub summary: DeadLetterSummary,
    /// The record's bytes as they were in the queue.
    pub raw: Vec<u8>,
}

/// A dead letter without the record's bytes, which may be many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSummary {
    /// The event's identity; derived from its position where the record has
    /// none that can be read.
    pub id: LogId,
    /// The size of the record where only its beginning is kept, because the
    /// store cannot hold all of it.
    pub cut_from: Option<u64>,
    /// The user, where it can be read.
    pub user_id: Option<String>,
    /// The queue that the record was in.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// Its place there.
    pub offset: Offset,
    /// When the queue took it.
    pub queued_at: Timestamp,
    /// Why it cannot be stored: a word for machines.
    pub code: String,
    /// The same for people.
    pub message: String,
    /// How often it was tried, replays included.
    pub attempts: u32,
    /// When it was tried last.
    pub failed_at: Timestamp,
}

/// Dead letters, kept beside the logs and as durably as they.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Keeps a letter. `Ok` means durable. A letter of that id is there
    /// already: its code, message and time are replaced and its attempts
    /// become the larger number of both; its bytes and its position stay.
    ///
    /// # Errors
    /// Nothing is known of the letter; putting it again is safe.
    async fn put(&self, letter: &DeadLetter) -> Result<(), StoreError>;

    /// The letters that match, by (`failed_at`, `id`) in the query's order. The
    /// records' bytes stay in the store: they could be gigabytes.
    ///
    /// # Errors
    /// The store could not answer.
    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetterSummary>, ReadError>;

    /// One letter.
    ///
    /// # Errors
    /// The store could not answer.
    async fn get(&self, id: LogId) -> Result<Option<DeadLetter>, ReadError>;

    /// Removes a letter; `Ok` also when there is none.
    ///
    /// # Errors
    /// Nothing is known; removing it again is safe.
    async fn remove(&self, id: LogId) -> Result<(), StoreError>;

    /// How many letters there are, with this code if one is given.
    ///
    /// # Errors
    /// The store could not answer.
    async fn count(&self, code: Option<&str>) -> Result<u64, ReadError>;
}

/// Which dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Only those with this code.
    pub code: Option<String>,
    /// Only those that failed from this time on.
    pub from: Option<Timestamp>,
    /// Only those that failed before this time.
    pub to: Option<Timestamp>,
    /// Only those after this one in the order: its `failed_at` and its id.
    pub after: Option<Cursor>,
    /// The latest failure first, or the earliest.
    pub order: Order,
    /// How many at most.
    pub limit: u32,
}

impl Default for DeadLetterQuery {
    /// The latest letters.
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
