//! [`Erasures`] in SQLite, in the same file as the log entries. Callers read them
//! like events, also while the writer is busy for minutes. Everything else runs on
//! the writer's thread, so that it waits for no reader.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogId, Timestamp, UserId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::readers::Snapshot;
use crate::domain::erasure::{CutOffs, Erasure, ErasureQuery, Erasures, Removed};
use crate::domain::read::ReadError;
use crate::domain::repository::StoreError;
use crate::infrastructure::repository::limits::ReadKind;

/// The table of erasures. Files of earlier versions get it when they are opened.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS erasures (
        id            BLOB    NOT NULL UNIQUE,
        user_id       TEXT    NOT NULL,
        requested_at  INTEGER NOT NULL,
        logs          INTEGER NOT NULL,
        dead_letters  INTEGER NOT NULL,
        completed_at  INTEGER
    );
    CREATE INDEX IF NOT EXISTS erasures_by_time ON erasures (requested_at, id);
";

/// Columns in the order that [`read`] expects.
const COLUMNS: &str = "id, user_id, requested_at, logs, dead_letters, completed_at";

/// The erasures of an embedded store.
#[derive(Debug, Clone)]
pub struct SqliteErasures {
    store: Arc<SqliteStore>,
}

impl SqliteErasures {
    /// Creates the erasures of this store.
    #[must_use]
    pub fn new(store: Arc<SqliteStore>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Erasures for SqliteErasures {
    async fn record(&self, erasure: &Erasure) -> Result<(), StoreError> {
        let erasure = erasure.clone();
        self.store.writer.write(move |connection| record(connection, &erasure)).await
    }

    async fn get(&self, id: LogId) -> Result<Option<Erasure>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM erasures WHERE id = ?1");
        let get = move |file: &mut Snapshot<'_>| {
            let mut select = file.connection().prepare_cached(&sql)?;
            Ok(select.query_row([id.as_bytes()], read).optional()?)
        };
        self.store.readers.read(ReadKind::ById, get).await.map_err(|error| store_error(&error))
    }

    async fn list(&self, query: &ErasureQuery) -> Result<Vec<Erasure>, StoreError> {
        let query = query.clone();
        if query.only_running {
            return self.store.writer.write(move |connection| list(connection, &query)).await;
        }
        let list = move |file: &mut Snapshot<'_>| Ok(list(file.connection(), &query)?);
        self.store.readers.read(ReadKind::Range, list).await.map_err(|error| store_error(&error))
    }

    async fn cut_offs(&self) -> Result<CutOffs, StoreError> {
        self.store.writer.write(cut_offs).await
    }

    async fn add_removed(&self, id: LogId, removed: Removed) -> Result<(), StoreError> {
        let add = move |connection: &Connection| {
            let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let sql = "UPDATE erasures SET logs = logs + ?2, dead_letters = dead_letters + ?3 \
                       WHERE id = ?1";
            let values = (id.as_bytes(), count(removed.store), count(removed.dead_letters));
            connection.prepare_cached(sql)?.execute(values).map(drop)
        };
        self.store.writer.write(add).await
    }

    async fn complete(&self, id: LogId, at: Timestamp) -> Result<(), StoreError> {
        let complete = move |connection: &Connection| {
            let sql = "UPDATE erasures SET completed_at = ?2 \
                       WHERE id = ?1 AND completed_at IS NULL";
            connection.prepare_cached(sql)?.execute((id.as_bytes(), at.as_millis())).map(drop)
        };
        self.store.writer.write(complete).await
    }

    /// The lock of the data directory is the lease.
    async fn acquire_lease(&self, _holder: LogId) -> Result<bool, StoreError> {
        Ok(true)
    }
}

fn store_error(error: &ReadError) -> StoreError {
    StoreError::Transient(error.to_string())
}

fn record(connection: &Connection, erasure: &Erasure) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO erasures ({COLUMNS}) VALUES (?1, ?2, ?3, 0, 0, NULL) \
         ON CONFLICT (id) DO NOTHING"
    );
    let Erasure { id, user_id, requested_at, .. } = erasure;
    connection
        .prepare_cached(&sql)?
        .execute(params![id.as_bytes(), user_id.as_str(), requested_at.as_millis()])
        .map(drop)
}

fn list(connection: &Connection, query: &ErasureQuery) -> rusqlite::Result<Vec<Erasure>> {
    let ErasureQuery { only_running, after, limit } = query;
    let after = after.map_or((i64::MAX, vec![0xff; 13]), |after| {
        (after.timestamp.as_millis(), after.id.as_bytes().to_vec())
    });
    let sql = format!(
        "SELECT {COLUMNS} FROM erasures \
         WHERE (requested_at, id) < (?1, ?2) AND (completed_at IS NULL OR NOT ?3) \
         ORDER BY requested_at DESC, id DESC LIMIT ?4"
    );
    connection
        .prepare_cached(&sql)?
        .query_map(params![after.0, after.1, only_running, limit], read)?
        .collect()
}

fn cut_offs(connection: &Connection) -> rusqlite::Result<CutOffs> {
    let mut cut_offs = CutOffs::default();
    let mut select = connection.prepare_cached("SELECT user_id, requested_at FROM erasures")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let cut_off = Timestamp::from_millis_clamped(row.get(1)?);
        cut_offs.add(read_user_id(row, 0)?, cut_off);
    }
    Ok(cut_offs)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Erasure> {
    Ok(Erasure {
        id: LogId::from_bytes(row.get(0)?),
        user_id: read_user_id(row, 1)?,
        requested_at: Timestamp::from_millis_clamped(row.get(2)?),
        removed: Removed {
            store: row.get::<_, i64>(3)?.unsigned_abs(),
            dead_letters: row.get::<_, i64>(4)?.unsigned_abs(),
        },
        completed_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis_clamped),
    })
}

fn read_user_id(row: &Row<'_>, column: usize) -> rusqlite::Result<UserId> {
    UserId::from_stored(row.get::<_, String>(column)?).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "it is empty".into())
    })
}
