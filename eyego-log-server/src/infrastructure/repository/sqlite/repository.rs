//! [`LogRepository`] in SQLite, and how entries are stored.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogId, LogQuery, Timestamp};
use rusqlite::{Connection, ErrorCode, params};

use super::readers::Snapshot;
use super::segments::TouchedSegments;
use super::tail::TailId;
use super::{SqliteStore, find, row, stats, tail};
use crate::domain::health::PartHealth;
use crate::domain::read::{Page, ReadError, ReadMemory};
use crate::domain::repository::{LogRepository, Rejection, StoreError, StoreOutcome, is_conflict};
use crate::domain::stats::{Stats, StatsQuery};
use crate::infrastructure::repository::feed::Feed;
use crate::infrastructure::repository::limits::ReadKind;

/// The log entries of an embedded store.
#[derive(Debug, Clone)]
pub struct SqliteRepository {
    pub(super) store: Arc<SqliteStore>,
}

impl SqliteRepository {
    /// Creates the repository of this store.
    #[must_use]
    pub fn new(store: Arc<SqliteStore>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl LogRepository for SqliteRepository {
    async fn store(&self, entries: &[LogEntry]) -> Result<Vec<StoreOutcome>, StoreError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        // The writer's thread can outlive this call, so it needs its own copy.
        let entries: Arc<[LogEntry]> = entries.into();
        let (stored, feed) = (Arc::clone(&entries), Arc::clone(&self.store.feed));
        let tail_id = self.store.tail_id;
        let work = move |connection: &Connection| store(connection, &entries);
        let committed = move |outcomes: &Stored| outcomes.publish(&feed, tail_id, &stored);
        Ok(self.store.writer.write_then(work, committed).await?.outcomes)
    }

    async fn find(&self, query: &LogQuery, memory: Arc<dyn ReadMemory>) -> Result<Page, ReadError> {
        let query = query.clone();
        let kind = ReadKind::of(&query);
        self.store.readers.read(kind, move |file| find::find(file, &query, &*memory)).await
    }

    async fn stats(
        &self,
        query: &StatsQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Stats, ReadError> {
        let query = query.clone();
        let stats = move |file: &mut Snapshot<'_>| stats::stats(file, &query, &*memory);
        self.store.readers.read(ReadKind::Scan, stats).await
    }

    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        let get = move |file: &mut Snapshot<'_>| Ok(row::get(file.connection(), id)?);
        self.store.readers.read(ReadKind::ById, get).await
    }

    fn health(&self) -> PartHealth {
        self.store.health()
    }
}

/// What a call stored.
pub(super) struct Stored {
    pub(super) outcomes: Vec<StoreOutcome>,
    /// Row number of the last entry, of this call or an earlier one.
    last_seq: i64,
}

impl Stored {
    /// Adds the stored entries to the feed. Rows get consecutive numbers.
    fn publish(&self, feed: &Feed<i64>, tail_id: TailId, entries: &[LogEntry]) {
        let is_stored = |outcome: &StoreOutcome| *outcome == StoreOutcome::Stored;
        let count = self.outcomes.iter().filter(|outcome| is_stored(outcome)).count();
        let first = self.last_seq + 1 - i64::try_from(count).unwrap_or(i64::MAX);
        let stored = entries.iter().zip(&self.outcomes);
        let stored = stored.filter(|(_, outcome)| is_stored(outcome));
        let events = (first..).zip(stored);
        let events = events.map(|(seq, (entry, _))| (seq, tail_id.event(seq, entry.clone())));
        feed.push(self.last_seq, events);
        feed.notify();
    }
}

/// Stores entries within a transaction of the caller.
pub(super) fn store(connection: &Connection, entries: &[LogEntry]) -> rusqlite::Result<Stored> {
    let mut last_seq = tail::last_seq(connection)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO logs (seq, id, user_id, action, timestamp, received_at, metadata) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
    )?;
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut touched = TouchedSegments::default();
    for entry in entries {
        let inserted = insert.execute(params![
            last_seq + 1,
            entry.id.as_bytes(),
            entry.user_id.as_str(),
            entry.action.as_str(),
            entry.timestamp.as_millis(),
            entry.received_at.map(Timestamp::as_millis),
            entry.metadata.as_json(),
        ]);
        outcomes.push(match inserted {
            Ok(0) => {
                let stored = row::get(connection, entry.id)?;
                let conflicting = stored.is_some_and(|stored| is_conflict(&stored, entry));
                StoreOutcome::Duplicate { conflicting }
            }
            Ok(_) => {
                last_seq += 1;
                touched.add(last_seq, entry.timestamp);
                StoreOutcome::Stored
            }
            // SQLite rolls back only this statement, so the other entries stay.
            Err(error) => StoreOutcome::Rejected(rejection(&error).ok_or(error)?),
        });
    }
    touched.save(connection)?;
    Ok(Stored { outcomes, last_seq })
}

/// Returns the rejection if the error concerns only this row.
fn rejection(error: &rusqlite::Error) -> Option<Rejection> {
    let code = match error.sqlite_error_code()? {
        ErrorCode::TooBig => "sqlite_too_big",
        // The schema has no such constraint, but an operator may have added one.
        ErrorCode::ConstraintViolation => "sqlite_constraint",
        _ => return None,
    };
    Some(Rejection { code: code.to_owned(), message: error.to_string(), is_known: true })
}
