//! [`LogRepository`] in SQLite: storing, and reading a row back. How a query
//! becomes SQL is in `find`.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{Action, LogEntry, LogId, LogQuery, Metadata, Timestamp, UserId};
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::segments::Touched;
use super::{SqliteStore, find};
use crate::domain::health::PartHealth;
use crate::domain::repository::{
    LogRepository, Page, ReadError, Rejection, StoreError, StoreOutcome, is_conflict,
};

/// The columns of a log, in the order in which [`read_entry`] takes them.
const COLUMNS: &str = "id, user_id, action, timestamp, received_at, metadata";

/// Where the metadata is among [`COLUMNS`].
const METADATA: usize = 5;

/// The logs of an embedded store.
#[derive(Debug, Clone)]
pub struct SqliteRepository {
    store: Arc<SqliteStore>,
}

impl SqliteRepository {
    /// The logs of this store.
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
        let entries = entries.to_vec();
        self.store.write(move |connection| store(connection, &entries)).await
    }

    async fn find(&self, query: &LogQuery) -> Result<Page, ReadError> {
        let query = query.clone();
        self.store.read(move |connection| find::find(connection, &query)).await
    }

    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        self.store.read(move |connection| get(connection, id)).await
    }

    fn health(&self) -> PartHealth {
        self.store.health()
    }
}

pub(super) fn store(
    connection: &Connection,
    entries: &[LogEntry],
) -> rusqlite::Result<Vec<StoreOutcome>> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO logs (id, user_id, action, timestamp, received_at, metadata) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO NOTHING",
    )?;
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut touched = Touched::default();
    for entry in entries {
        let inserted = insert.execute(params![
            entry.id.as_bytes(),
            entry.user_id.as_str(),
            entry.action.as_str(),
            entry.timestamp.as_millis(),
            entry.received_at.map(Timestamp::as_millis),
            entry.metadata.as_json(),
        ]);
        outcomes.push(match inserted {
            Ok(0) => {
                let stored = get(connection, entry.id)?;
                let conflicting = stored.is_some_and(|stored| is_conflict(&stored, entry));
                StoreOutcome::Duplicate { conflicting }
            }
            Ok(_) => {
                touched.add(connection.last_insert_rowid(), entry.timestamp);
                StoreOutcome::Stored
            }
            // SQLite undoes this statement alone: the neighbours stay.
            Err(error) => StoreOutcome::Rejected(rejection(&error).ok_or(error)?),
        });
    }
    touched.save(connection)?;
    Ok(outcomes)
}

/// Why the store will not take this row, if that is what the error says.
fn rejection(error: &rusqlite::Error) -> Option<Rejection> {
    let code = match error.sqlite_error_code()? {
        ErrorCode::TooBig => "sqlite_too_big",
        // None of ours, but an operator may have added a rule to the file.
        ErrorCode::ConstraintViolation => "sqlite_constraint",
        _ => return None,
    };
    Some(Rejection { code: code.to_owned(), message: error.to_string(), is_known: true })
}

fn get(connection: &Connection, id: LogId) -> rusqlite::Result<Option<LogEntry>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id = ?1"))?
        .query_row([id.as_bytes()], read_entry)
        .optional()
}

/// The log that was stored at this place.
pub(super) fn get_by_seq(connection: &Connection, seq: i64) -> rusqlite::Result<LogEntry> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE seq = ?1"))?
        .query_row([seq], read_entry)
}

/// The log in a row of [`COLUMNS`].
fn read_entry(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    let empty = |column| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "it is empty".into())
    };
    let metadata = Metadata::from_stored(row.get(METADATA)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(METADATA, Type::Text, Box::new(error))
    })?;
    let mut entry = LogEntry::new(
        LogId::from_bytes(row.get(0)?),
        UserId::from_stored(row.get::<_, String>(1)?).ok_or_else(|| empty(1))?,
        Action::from_stored(row.get::<_, String>(2)?).ok_or_else(|| empty(2))?,
        Timestamp::from_millis_clamped(row.get(3)?),
        metadata,
    );
    entry.received_at = row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis_clamped);
    Ok(entry)
}
