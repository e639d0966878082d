//! The store port: where each event is kept exactly once and queried.

use async_trait::async_trait;
use eyego_log_core::query::Cursor;
use eyego_log_core::{LogEntry, LogId, LogQuery};

use super::health::PartHealth;

/// A store of log entries that holds each id at most once.
#[async_trait]
pub trait LogRepository: Send + Sync {
    /// Stores entries and returns one outcome per entry, in their order.
    ///
    /// Any outcome except [`StoreOutcome::Rejected`] means that the id is stored
    /// durably (on a replicated store, by a majority). Entries are independent:
    /// a rejected entry MUST NOT prevent its neighbours from being stored. If
    /// one call contains the same id twice, the first is stored and the second
    /// is a duplicate.
    ///
    /// # Errors
    /// Returns an error if the outcome of every entry is unknown. Storing all of
    /// them again is safe.
    async fn store(&self, entries: &[LogEntry]) -> Result<Vec<StoreOutcome>, StoreError>;

    /// Returns the page of entries that `query` asks for, in its order.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn find(&self, query: &LogQuery) -> Result<Page, ReadError>;

    /// Returns the entry with this id, or `None` if it is not stored.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError>;

    /// Returns the last observed health. Never blocks.
    fn health(&self) -> PartHealth;
}

/// Outcome of storing one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutcome {
    /// This call stored the entry.
    Stored,
    /// The id was already stored; the stored entry is unchanged.
    Duplicate {
        /// Whether the stored entry has different content ([`is_conflict`]).
        conflicting: bool,
    },
    /// The store will never accept this entry.
    Rejected(Rejection),
}

/// The reason the store rejected an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Machine-readable code, such as `mongodb_121`.
    pub code: String,
    /// Human-readable message.
    pub message: String,
    /// Whether the code is known to concern this entry alone. If all entries of
    /// a bulk get the same unknown code, the store as a whole may be at fault.
    pub is_known: bool,
}

/// Returns `true` if `offered` has different content than the entry already
/// `stored` under its id. Timestamps set by the server are ignored, because
/// they differ in each retry.
#[must_use]
pub fn is_conflict(stored: &LogEntry, offered: &LogEntry) -> bool {
    stored.user_id != offered.user_id
        || stored.action != offered.action
        || (offered.has_caller_timestamp() && stored.timestamp != offered.timestamp)
        || !stored.metadata.is_same_value(&offered.metadata)
}

/// The reason the outcome of a [`store`](LogRepository::store) call is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A transient failure: retry without limit.
    #[error("{0}")]
    Transient(String),
    /// A failure that an operator has to fix, such as wrong credentials, missing
    /// permissions or a full disk: report it and retry occasionally.
    #[error("{0}")]
    Operator(String),
    /// The store refused the whole call with an unknown code: split the call to
    /// find the entry that causes it.
    #[error("{message}")]
    Unknown {
        /// Machine-readable code.
        code: String,
        /// Human-readable message.
        message: String,
    },
}

/// The reason a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store is unreachable or overloaded.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store returned a response that cannot be interpreted.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// One page of a query's result, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Entries of the page.
    pub entries: Vec<LogEntry>,
    /// Position of the last entry, if more entries follow.
    pub next: Option<Cursor>,
}

impl Page {
    /// Builds a page of at most `limit` entries from a result of up to
    /// `limit + 1`. The extra entry only shows that there are more.
    #[must_use]
    pub fn from_one_more(mut entries: Vec<LogEntry>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let next = if has_more { entries.last().map(Cursor::from) } else { None };
        Self { entries, next }
    }
}
