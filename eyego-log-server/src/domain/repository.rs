//! The store port: where each event is kept exactly once and queried.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogId, LogQuery};

use super::health::PartHealth;
use super::read::{Page, ReadError, ReadMemory};
use super::stats::{Stats, StatsQuery};

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
    /// The page has at most `limit` entries and, unless a single entry is larger,
    /// at most [`MAX_PAGE_BYTES`](super::read::MAX_PAGE_BYTES). If the store skips
    /// what it cannot return as an entry, the page can have fewer entries, or none, and
    /// MUST have a position to continue from unless the result has ended. The store MUST
    /// NOT load more than that plus one batch of the engine's, and reserves each
    /// entry from `memory`. It works on a query for up to 10 s, and stops soon
    /// after the returned future is dropped.
    ///
    /// Reads by id, queries that an index bounds, and scans have separate limits:
    /// many of one kind MUST NOT delay another kind, nor [`store`](Self::store).
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query in time.
    async fn find(&self, query: &LogQuery, memory: Arc<dyn ReadMemory>) -> Result<Page, ReadError>;

    /// Returns the counts that `query` asks for, as an
    /// [`Aggregate`](super::stats::Aggregate) of all matching entries has them. This
    /// is a scan, and bounded like one of [`find`](Self::find).
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query in time.
    async fn stats(
        &self,
        query: &StatsQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Stats, ReadError>;

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

impl Rejection {
    /// The event under this id has other content than the one already stored
    /// there ([`is_conflict`]).
    #[must_use]
    pub fn id_conflict(id: LogId) -> Self {
        Self {
            code: "id_conflict".to_owned(),
            message: format!(
                "another event is stored under the id {id}: send this one with an id of its own"
            ),
            is_known: true,
        }
    }
}

/// Returns `true` if `offered` has different content than the entry already
/// `stored` under its id (ADR 0026). Timestamps set by the server are ignored,
/// because they differ in each retry.
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
