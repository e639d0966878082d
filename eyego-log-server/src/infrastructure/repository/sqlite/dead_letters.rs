//! [`DeadLetters`] in SQLite, in the store's file.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::SqliteStore;
use crate::domain::dead_letter::{DeadLetter, DeadLetterQuery, DeadLetters};
use crate::domain::repository::{ReadError, StoreError};

/// The columns of a letter, in the order in which [`read_letter`] takes them.
const COLUMNS: &str = "id, raw, cut_from, user_id, topic, partition, offset, queued_at, \
                       code, message, attempts, failed_at";

/// The dead letters of an embedded store.
#[derive(Debug, Clone)]
pub struct SqliteDeadLetters {
    store: Arc<SqliteStore>,
}

impl SqliteDeadLetters {
    /// The dead letters of this store.
    #[must_use]
    pub fn new(store: Arc<SqliteStore>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl DeadLetters for SqliteDeadLetters {
    async fn put(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let letter = letter.clone();
        self.store.write(move |connection| put(connection, &letter)).await
    }

    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, ReadError> {
        let query = query.clone();
        self.store.read(move |connection| list(connection, &query)).await
    }

    async fn get(&self, id: LogId) -> Result<Option<DeadLetter>, ReadError> {
        let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE id = ?1");
        let read = move |connection: &Connection| {
            connection.prepare_cached(&sql)?.query_row([id.as_bytes()], read_letter).optional()
        };
        self.store.read(read).await
    }

    async fn remove(&self, id: LogId) -> Result<(), StoreError> {
        let delete = move |connection: &Connection| {
            let mut delete = connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?;
            delete.execute([id.as_bytes()]).map(drop)
        };
        self.store.write(delete).await
    }

    async fn count(&self, code: Option<&str>) -> Result<u64, ReadError> {
        let code = code.map(str::to_owned);
        let count = move |connection: &Connection| match &code {
            Some(code) => connection.query_row(
                "SELECT count(*) FROM dead_letters WHERE code = ?1",
                [code],
                |row| row.get::<_, i64>(0),
            ),
            None => connection.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0)),
        };
        Ok(self.store.read(count).await?.unsigned_abs())
    }
}

fn put(connection: &Connection, letter: &DeadLetter) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare_cached(&format!(
        "INSERT INTO dead_letters ({COLUMNS}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT (id) DO UPDATE SET code = excluded.code, message = excluded.message, \
         failed_at = excluded.failed_at, attempts = max(attempts, excluded.attempts)"
    ))?;
    let cut_from = letter.cut_from.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    upsert
        .execute(params![
            letter.id.as_bytes(),
            letter.raw,
            cut_from,
            letter.user_id,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.queued_at.as_millis(),
            letter.code,
            letter.message,
            letter.attempts,
            letter.failed_at.as_millis(),
        ])
        .map(drop)
}

fn list(connection: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut conditions = vec!["TRUE"];
    let mut parameters = Vec::new();
    if let Some(code) = &query.code {
        conditions.push("code = ?");
        parameters.push(Value::from(code.clone()));
    }
    if let Some(from) = query.from {
        conditions.push("failed_at >= ?");
        parameters.push(Value::from(from.as_millis()));
    }
    if let Some(to) = query.to {
        conditions.push("failed_at < ?");
        parameters.push(Value::from(to.as_millis()));
    }
    if let Some((failed_at, id)) = query.after {
        conditions.push("(failed_at, id) < (?, ?)");
        parameters.push(Value::from(failed_at.as_millis()));
        parameters.push(Value::from(id.as_bytes().to_vec()));
    }
    parameters.push(Value::from(i64::from(query.limit)));
    let condition = conditions.join(" AND ");
    let mut select = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM dead_letters WHERE {condition} \
         ORDER BY failed_at DESC, id DESC LIMIT ?"
    ))?;
    select.query_map(params_from_iter(parameters), read_letter)?.collect()
}

fn read_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: LogId::from_bytes(row.get(0)?),
        raw: row.get(1)?,
        cut_from: row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
        user_id: row.get(3)?,
        topic: row.get(4)?,
        partition: row.get(5)?,
        offset: row.get(6)?,
        queued_at: Timestamp::from_millis_clamped(row.get(7)?),
        code: row.get(8)?,
        message: row.get(9)?,
        attempts: row.get(10)?,
        failed_at: Timestamp::from_millis_clamped(row.get(11)?),
    })
}
