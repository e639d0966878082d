//! The port of the store: where each event is kept, once, and found again.

use async_trait::async_trait;
use eyego_log_core::query::Cursor;
use eyego_log_core::{LogEntry, LogId, LogQuery};

use super::health::PartHealth;

/// A store of logs that holds each id at most once.
#[async_trait]
pub trait LogRepository: Send + Sync {
    /// Stores entries; answers one outcome per entry, in their order.
    ///
    /// An outcome other than [`StoreOutcome::Rejected`] means that the id is
    /// stored durably (on a replicated store by a majority). Entries are
    /// judged one by one: a rejected entry MUST NOT keep its neighbours from
    /// being stored. The same id twice in one call is stored once; the second
    /// is a duplicate.
    ///
    /// # Errors
    /// The fate of every entry is open; storing all of them again is safe.
    async fn store(&self, entries: &[LogEntry]) -> Result<Vec<StoreOutcome>, StoreError>;

    /// The logs that match, in the query's order, from where it says.
    ///
    /// # Errors
    /// The store could not answer.
    async fn find(&self, query: &LogQuery) -> Result<Page, ReadError>;

    /// One log; `None` where no such id is stored.
    ///
    /// # Errors
    /// The store could not answer.
    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError>;

    /// How the store is, as last seen; never waits.
    fn health(&self) -> PartHealth;
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It is stored, by this call.
    Stored,
    /// Its id was stored before; that log is left as it is.
    Duplicate {
        /// Whether what is stored says something else ([`is_conflict`]).
        conflicting: bool,
    },
    /// The store will not take this entry, now or later.
    Rejected(Rejection),
}

/// Why the store does not take an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A word for machines, such as `mongodb_121`.
    pub code: String,
    /// The same for people.
    pub message: String,
    /// Whether the store is known to mean this entry: an unknown code may mean
    /// the store as a whole, if all entries get it.
    pub is_known: bool,
}

/// Whether an entry says something else than the log that is stored under its
/// id. A time that we set says nothing: it differs in each retry.
#[must_use]
pub fn is_conflict(stored: &LogEntry, offered: &LogEntry) -> bool {
    stored.user_id != offered.user_id
        || stored.action != offered.action
        || (offered.has_callers_timestamp() && stored.timestamp != offered.timestamp)
        || !stored.metadata.is_same_value(&offered.metadata)
}

/// Why nothing is known of a call's entries.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It passes: try again, for ever.
    #[error("{0}")]
    Transient(String),
    /// It passes only when somebody mends it (credentials, permissions, a full
    /// disk): halt, say so, try again now and then.
    #[error("{0}")]
    Operator(String),
    /// The whole call was refused, by a code that nobody knows: look for the
    /// entry that is at fault.
    #[error("{message}")]
    Unknown {
        /// A word for machines.
        code: String,
        /// The same for people.
        message: String,
    },
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be reached, or has other things to do.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It answered with something that makes no sense.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Some logs, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The logs.
    pub entries: Vec<LogEntry>,
    /// The place of the last of them, if there are more after it.
    pub next: Option<Cursor>,
}

impl Page {
    /// The page out of up to `limit + 1` entries: the one too many says that
    /// there are more.
    #[must_use]
    pub fn from_one_more(mut entries: Vec<LogEntry>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let next = if has_more { entries.last().map(Cursor::from) } else { None };
        Self { entries, next }
    }
}
