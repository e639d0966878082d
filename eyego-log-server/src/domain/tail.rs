//! The tail port: events in the order in which they are stored.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogQuery};

use super::read::ReadError;

/// Maximum size of a batch as JSON, in bytes. A single larger event is a batch of
/// its own.
pub const MAX_BATCH_BYTES: usize = 16 << 10;

/// Maximum number of events in a batch.
pub const MAX_BATCH_EVENTS: usize = 64;

/// What a batch contains so far, to keep it within its limits.
#[derive(Debug, Default)]
pub struct BatchSize {
    events: usize,
    bytes: usize,
}

impl BatchSize {
    /// Returns whether the batch has room for this many events of `bytes` as JSON. An empty
    /// batch has room for everything.
    #[must_use]
    pub fn has_room(&self, events: usize, bytes: usize) -> bool {
        self.events == 0
            || (self.events + events <= MAX_BATCH_EVENTS && self.bytes + bytes <= MAX_BATCH_BYTES)
    }

    /// Adds an event of `bytes` as JSON. Returns false if the batch has no room for it.
    pub fn add(&mut self, bytes: usize) -> bool {
        let has_room = self.has_room(1, bytes);
        if has_room {
            self.events += 1;
            self.bytes += bytes;
        }
        has_room
    }
}

/// A store that can be followed.
#[async_trait]
pub trait LogTail: Send + Sync {
    /// Starts a tail of the events that match the filters of `filter`.
    ///
    /// Without `after`, each event MUST be returned that is stored once this call has
    /// returned. With `after`, a token of an earlier tail, each event MUST be returned
    /// that was stored after the position of that tail. Events are returned in the
    /// order in which the store made them visible, and each at most once. An event that
    /// was removed MUST NOT be returned later.
    ///
    /// # Errors
    /// Returns an error if the token is not valid or too old, or if the store cannot
    /// be followed.
    async fn follow(
        &self,
        filter: &LogQuery,
        after: Option<&str>,
    ) -> Result<Box<dyn Tail>, TailError>;
}

/// Events as they are stored.
#[async_trait]
pub trait Tail: Send {
    /// Waits for the next events. A batch can be empty: then the position has changed.
    ///
    /// A caller that calls this too rarely misses events. Their number MUST be
    /// reported.
    ///
    /// # Errors
    /// Returns an error if the tail cannot continue. A new one can, with the
    /// [`token`](Self::token).
    async fn next(&mut self) -> Result<TailBatch, TailError>;

    /// Returns the token of the position after everything that was returned.
    fn token(&self) -> String;
}

/// A part of a tail.
#[derive(Debug, Default)]
pub struct TailBatch {
    /// Number of matching events that were stored before these and are not returned,
    /// because the caller was too slow. A store MAY count events that do not match while
    /// many tails with different filters are too slow.
    pub skipped: u64,
    /// The next events, within [`MAX_BATCH_BYTES`] and [`MAX_BATCH_EVENTS`].
    pub events: Vec<Arc<TailedEvent>>,
}

/// An event of a tail. All tails share it.
#[derive(Debug)]
pub struct TailedEvent {
    /// Continues a tail after this event.
    pub token: String,
    /// The event.
    pub entry: LogEntry,
    /// The form in which the event is sent to callers, once it has been encoded.
    pub encoded: OnceLock<Box<[u8]>>,
}

impl TailedEvent {
    /// Creates the event, which is not encoded.
    #[must_use]
    pub fn new(token: String, entry: LogEntry) -> Self {
        Self { token, entry, encoded: OnceLock::new() }
    }
}

/// The reason a tail cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The token is not one of this store.
    #[error("the token is not one of this store")]
    InvalidToken,
    /// The store no longer has what follows the token.
    #[error("the token is too old")]
    TokenTooOld,
    /// The store cannot be followed at all.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Returns whether an entry matches the filters of a query.
#[must_use]
pub fn matches(filter: &LogQuery, entry: &LogEntry) -> bool {
    matches_fields(filter, entry)
        && (filter.metadata.is_empty() || {
            let map = entry.metadata.to_map();
            filter.metadata.iter().all(|filter| filter.matches(&map))
        })
}

/// Returns whether an entry matches those filters of a query that do not concern its metadata.
#[must_use]
pub fn matches_fields(filter: &LogQuery, entry: &LogEntry) -> bool {
    let LogQuery { user_id, action, from, to, metadata: _, limit: _, start: _, order: _ } = filter;
    user_id.as_deref().is_none_or(|user_id| entry.user_id.as_str() == user_id)
        && action.as_deref().is_none_or(|action| entry.action.as_str() == action)
        && from.is_none_or(|from| entry.timestamp >= from)
        && to.is_none_or(|to| entry.timestamp < to)
}
