//! [`DeadLetters`] in SQLite, in the same file as the log entries.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::query::Order;
use eyego_log_core::{LogId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::SqliteStore;
use super::readers::{QueryError, Snapshot};
use crate::domain::dead_letter::{
    DeadLetter, DeadLetterQuery, DeadLetterSummary, DeadLetters, MAX_TEXT_BYTES, beginning,
};
use crate::domain::read::{Page, PageBuilder, ReadError, ReadMemory};
use crate::domain::repository::StoreError;
use crate::infrastructure::repository::limits::ReadKind;

/// Columns of a dead letter except `raw`, in the order that [`read_summary`]
/// expects.
const COLUMNS: &str = "id, cut_from, user_id, topic, partition, offset, queued_at, \
                       code, message, attempts, failed_at";

/// The index that erasures use. Files of earlier versions get it when they are opened.
pub(super) const USER_INDEX: &str =
    "CREATE INDEX IF NOT EXISTS dead_letters_by_user ON dead_letters (user_id, id)";

/// The dead letters of an embedded store.
#[derive(Debug, Clone)]
pub struct SqliteDeadLetters {
    store: Arc<SqliteStore>,
}

impl SqliteDeadLetters {
    /// Creates the dead letters of this store.
    #[must_use]
    pub fn new(store: Arc<SqliteStore>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl DeadLetters for SqliteDeadLetters {
    async fn put(&self, dead_letter: &DeadLetter) -> Result<(), StoreError> {
        let dead_letter = dead_letter.clone();
        self.store.writer.write(move |connection| put(connection, &dead_letter)).await
    }

    async fn list(
        &self,
        query: &DeadLetterQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Page<DeadLetterSummary>, ReadError> {
        let query = query.clone();
        self.store.readers.read(ReadKind::Range, move |file| list(file, &query, &*memory)).await
    }

    async fn get(&self, id: LogId) -> Result<Option<DeadLetter>, ReadError> {
        let sql = format!("SELECT {COLUMNS}, raw FROM dead_letters WHERE id = ?1");
        let read = move |file: &mut Snapshot<'_>| {
            let mut select = file.connection().prepare_cached(&sql)?;
            Ok(select.query_row([id.as_bytes()], read_dead_letter).optional()?)
        };
        self.store.readers.read(ReadKind::ById, read).await
    }

    async fn remove(&self, id: LogId) -> Result<(), StoreError> {
        let delete = move |connection: &Connection| {
            let mut delete = connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?;
            delete.execute([id.as_bytes()]).map(drop)
        };
        self.store.writer.write(delete).await
    }

    async fn count(&self, code: Option<&str>) -> Result<u64, ReadError> {
        let code = code.map(str::to_owned);
        let count = move |file: &mut Snapshot<'_>| {
            let sql = match code {
                Some(_) => "SELECT count(*) FROM dead_letters WHERE code = ?1",
                None => "SELECT count(*) FROM dead_letters WHERE ?1 IS NULL",
            };
            Ok(file.connection().query_row(sql, [&code], |row| row.get::<_, i64>(0))?)
        };
        Ok(self.store.readers.read(ReadKind::Scan, count).await?.unsigned_abs())
    }
}

fn put(connection: &Connection, dead_letter: &DeadLetter) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare_cached(&format!(
        "INSERT INTO dead_letters ({COLUMNS}, raw) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT (id) DO UPDATE SET code = excluded.code, message = excluded.message, \
         failed_at = excluded.failed_at, attempts = max(attempts, excluded.attempts)"
    ))?;
    let DeadLetter { summary, raw } = dead_letter;
    let cut_from = summary.truncated_from.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    upsert
        .execute(params![
            summary.id.as_bytes(),
            cut_from,
            summary.user_id.as_deref().map(shortened),
            shortened(&summary.topic),
            summary.partition,
            summary.offset,
            summary.queued_at.as_millis(),
            shortened(&summary.code),
            shortened(&summary.message),
            summary.attempts,
            summary.failed_at.as_millis(),
            raw,
        ])
        .map(drop)
}

fn shortened(text: &str) -> &str {
    beginning(text, MAX_TEXT_BYTES)
}

fn list(
    file: &Snapshot<'_>,
    query: &DeadLetterQuery,
    memory: &dyn ReadMemory,
) -> Result<Page<DeadLetterSummary>, QueryError> {
    let (direction, after) = match query.order {
        Order::Descending => ("DESC", "(failed_at, id) < (?, ?)"),
        Order::Ascending => ("ASC", "(failed_at, id) > (?, ?)"),
    };
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
    if let Some(cursor) = query.after {
        conditions.push(after);
        parameters.push(Value::from(cursor.timestamp.as_millis()));
        parameters.push(Value::from(cursor.id.as_bytes().to_vec()));
    }
    let condition = conditions.join(" AND ");
    let mut select = file.connection().prepare_cached(&format!(
        "SELECT {COLUMNS} FROM dead_letters WHERE {condition} \
         ORDER BY failed_at {direction}, id {direction}"
    ))?;
    let mut page = PageBuilder::new(query.limit, memory);
    for summary in select.query_map(params_from_iter(parameters), read_summary)? {
        file.check()?;
        if page.push(summary?)?.is_break() {
            break;
        }
    }
    Ok(page.finish())
}

fn read_dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter { summary: read_summary(row)?, raw: row.get("raw")? })
}

fn read_summary(row: &Row<'_>) -> rusqlite::Result<DeadLetterSummary> {
    Ok(DeadLetterSummary {
        id: LogId::from_bytes(row.get(0)?),
        truncated_from: row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
        user_id: row.get(2)?,
        topic: row.get(3)?,
        partition: row.get(4)?,
        offset: row.get(5)?,
        queued_at: Timestamp::from_millis_clamped(row.get(6)?),
        code: row.get(7)?,
        message: row.get(8)?,
        attempts: row.get(9)?,
        failed_at: Timestamp::from_millis_clamped(row.get(10)?),
    })
}
