//! [`LogRemoval`] in SQLite. Rows are selected and deleted on the writer's thread,
//! so that each call sees all rows of earlier [`store`] calls.
//!
//! [`store`]: crate::domain::repository::LogRepository::store

use async_trait::async_trait;
use eyego_log_core::{LogId, Timestamp, UserId};
use rusqlite::{Connection, params};

use super::segments::SEGMENT_BITS;
use super::{SqliteRepository, row, tail};
use crate::domain::removal::{Examined, LogRemoval, Window};
use crate::domain::repository::StoreError;
use crate::domain::retention::Retention;

/// Number of segments of the user index that one transaction searches.
const SEGMENTS_AT_ONCE: usize = 64;

#[async_trait]
impl LogRemoval for SqliteRepository {
    async fn delete_expired(
        &self,
        retention: &Retention,
        now: Timestamp,
        window: &Window,
        limit: u32,
    ) -> Result<Examined, StoreError> {
        let (retention, window) = (retention.clone(), window.clone());
        let delete = move |connection: &Connection| {
            delete_expired(connection, &retention, now, &window, limit)
        };
        let (examined, rows) = self.store.writer.write(delete).await?;
        self.remove_from_feed(rows);
        Ok(examined)
    }

    async fn delete_of_user(
        &self,
        user_id: &UserId,
        received_before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut left = u64::from(limit);
        let segments = self.store.writer.write(segment_numbers).await?;
        for numbers in segments.chunks(SEGMENTS_AT_ONCE) {
            let (user_id, numbers) = (user_id.clone(), numbers.to_vec());
            let delete = move |connection: &Connection| {
                delete_of_user(connection, &user_id, received_before, &numbers, left)
            };
            let rows = self.store.writer.write(delete).await?;
            left -= rows.len() as u64;
            self.remove_from_feed(rows);
            if left == 0 {
                break;
            }
        }
        Ok(u64::from(limit) - left)
    }

    async fn dead_letters_of_user(
        &self,
        user_id: &UserId,
        after: Option<LogId>,
        limit: u32,
    ) -> Result<Vec<LogId>, StoreError> {
        let user_id = user_id.clone();
        let select = move |connection: &Connection| {
            let sql = "SELECT id FROM dead_letters \
                       WHERE user_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
            let after = after.map_or(Vec::new(), |after| after.as_bytes().to_vec());
            let mut select = connection.prepare_cached(sql)?;
            let values = params![user_id.as_str(), after, limit];
            let ids = select.query_map(values, |row| row.get(0).map(LogId::from_bytes))?;
            ids.collect::<rusqlite::Result<Vec<_>>>()
        };
        self.store.writer.write(select).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = |connection: &Connection| {
            let mut select = connection.prepare_cached("SELECT min(timestamp) FROM logs")?;
            select.query_row([], |row| row.get::<_, Option<i64>>(0))
        };
        Ok(self.store.writer.write(oldest).await?.map(Timestamp::from_millis_clamped))
    }

    async fn purge(&self) -> Result<(), StoreError> {
        self.store.writer.purge().await
    }
}

impl SqliteRepository {
    /// Tails that are behind no longer return these rows.
    fn remove_from_feed(&self, mut rows: Vec<i64>) {
        if !rows.is_empty() {
            rows.sort_unstable();
            self.store.feed.remove(|seq, _| rows.binary_search(seq).is_ok());
        }
    }
}

/// Returns what was examined, and the numbers of the deleted rows. This reads all
/// actions: the action index has no order by time over all segments.
fn delete_expired(
    connection: &Connection,
    retention: &Retention,
    now: Timestamp,
    window: &Window,
    limit: u32,
) -> rusqlite::Result<(Examined, Vec<i64>)> {
    let after = window.after.map_or((i64::MIN, Vec::new()), |after| {
        (after.timestamp.as_millis(), after.id.as_bytes().to_vec())
    });
    let mut select = connection.prepare_cached(&format!(
        "SELECT {}, action FROM logs \
         WHERE (timestamp, id) > (?1, ?2) AND timestamp < ?3 ORDER BY timestamp, id LIMIT ?4",
        row::KEY_COLUMNS
    ))?;
    let values = params![after.0, after.1, window.before.as_millis(), limit];
    let mut rows = select.query(values)?;
    let (mut expired, mut last, mut examined) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let key = row::read_key(row)?;
        let action: String = row.get("action")?;
        if retention.is_expired(&action, key.timestamp, now) {
            expired.push(key.seq);
        }
        last = Some(key.cursor());
        examined += 1;
    }
    drop(rows);
    delete(connection, &expired)?;
    let next = last.filter(|_| examined == limit);
    Ok((Examined { deleted: expired.len() as u64, next }, expired))
}

fn segment_numbers(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection.prepare_cached("SELECT number FROM segments ORDER BY number")?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// Returns the numbers of the deleted rows.
fn delete_of_user(
    connection: &Connection,
    user_id: &UserId,
    received_before: Timestamp,
    segments: &[i64],
    limit: u64,
) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT seq FROM logs WHERE seq >> {SEGMENT_BITS} = ?1 AND user_id = ?2 \
         AND coalesce(received_at, timestamp) < ?3 LIMIT ?4"
    ))?;
    let mut deleted = Vec::new();
    for number in segments {
        let left = i64::try_from(limit - deleted.len() as u64).unwrap_or(i64::MAX);
        let values = params![number, user_id.as_str(), received_before.as_millis(), left];
        let rows: Vec<i64> =
            select.query_map(values, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        delete(connection, &rows)?;
        deleted.extend(rows);
        if deleted.len() as u64 == limit {
            break;
        }
    }
    Ok(deleted)
}

/// Deletes rows, and the segments that are empty then.
fn delete(connection: &Connection, rows: &[i64]) -> rusqlite::Result<()> {
    if let Some(last) = rows.iter().max() {
        tail::keep_last_deleted(connection, *last)?;
    }
    let mut delete = connection.prepare_cached("DELETE FROM logs WHERE seq = ?1")?;
    for seq in rows {
        delete.execute([seq])?;
    }
    let mut numbers: Vec<_> = rows.iter().map(|seq| seq >> SEGMENT_BITS).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut forget = connection.prepare_cached(&format!(
        "DELETE FROM segments WHERE number = ?1 AND NOT EXISTS (\
             SELECT 1 FROM logs \
             WHERE seq >= ?1 << {SEGMENT_BITS} AND seq < (?1 + 1) << {SEGMENT_BITS})"
    ))?;
    for number in numbers {
        forget.execute([number])?;
    }
    Ok(())
}
