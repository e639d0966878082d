//! Tails of the embedded store, in the order of the commits.
//!
//! Rows are numbered in the order in which they are committed, and a number is never
//! used again. A tail that is too far behind for the feed reads rows by their number.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogQuery};
use rusqlite::Connection;

use super::readers::{QueryError, Snapshot};
use super::row;
use super::{SqliteRepository, SqliteStore};
use crate::domain::read::{PageItem as _, ReadError};
use crate::domain::tail::{BatchSize, LogTail, Tail, TailBatch, TailError, TailedEvent, matches};
use crate::infrastructure::repository::feed::Subscription;
use crate::infrastructure::repository::limits::ReadKind;

/// The identity of the file, and the highest number of a deleted row. Files of earlier
/// versions get it when they are opened.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS tail (
        store_id     INTEGER NOT NULL,
        last_deleted INTEGER NOT NULL
    );
    INSERT INTO tail (store_id, last_deleted)
        SELECT random(), 0 WHERE NOT EXISTS (SELECT 1 FROM tail);
";

/// Maximum number of tails that read rows at the same time. They share the limit of
/// range reads with other queries, to which most of it is left.
pub(super) const MAX_READS: usize = 2;

/// Number of rows that one read examines.
const MAX_ROWS: usize = 1000;

/// Size at which a read ends, in bytes.
const MAX_EXAMINED_BYTES: usize = 1 << 20;

/// Pause before a read that other queries left no room for is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// Distinguishes the file from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TailId(i64);

/// Returns the identity of the file.
pub(super) fn id(connection: &Connection) -> rusqlite::Result<TailId> {
    connection.query_row("SELECT store_id FROM tail", [], |row| row.get(0).map(TailId))
}

/// Returns the highest number that a row has or had.
pub(super) fn last_seq(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT max(last_deleted, coalesce((SELECT max(seq) FROM logs), 0)) FROM tail",
        )?
        .query_row([], |row| row.get(0))
}

/// Keeps the number of a row that is deleted, so that it is never used again.
pub(super) fn keep_last_deleted(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE tail SET last_deleted = ?1 WHERE last_deleted < ?1")?
        .execute([seq])?;
    Ok(())
}

impl TailId {
    /// Returns the event in a row with this number.
    pub(super) fn event(self, seq: i64, entry: LogEntry) -> TailedEvent {
        TailedEvent::new(self.token(seq), entry)
    }

    fn token(self, seq: i64) -> String {
        format!("e-{:016x}-{seq:x}", self.0)
    }

    fn parse(self, token: &str) -> Option<i64> {
        let (_, seq) = token.rsplit_once('-')?;
        let seq = i64::from_str_radix(seq, 16).ok()?;
        // Each token has one form only.
        (self.token(seq) == token).then_some(seq)
    }
}

#[async_trait]
impl LogTail for SqliteRepository {
    async fn follow(
        &self,
        filter: &LogQuery,
        after: Option<&str>,
    ) -> Result<Box<dyn Tail>, TailError> {
        let store = Arc::clone(&self.store);
        let closed = || ReadError::Unavailable("the store is closed".to_owned());
        let live = store.feed.subscribe(filter).ok_or_else(closed)?;
        let behind = match after {
            None => None,
            Some(token) => {
                let seq = store.tail_id.parse(token).ok_or(TailError::InvalidToken)?;
                // An older copy of the file has not given this token yet.
                if !(0..=live.position()).contains(&seq) {
                    return Err(TailError::InvalidToken);
                }
                Some(seq)
            }
        };
        Ok(Box::new(SqliteTail { store, filter: filter.clone(), live, behind }))
    }
}

struct SqliteTail {
    store: Arc<SqliteStore>,
    filter: LogQuery,
    live: Subscription<i64>,
    /// The position, until the feed has all events after it.
    behind: Option<i64>,
}

#[async_trait]
impl Tail for SqliteTail {
    async fn next(&mut self) -> Result<TailBatch, TailError> {
        if let Some(after) = self.behind {
            if !self.live.seek(&after) {
                let (events, position) = self.read(after).await?;
                self.behind = Some(position);
                return Ok(TailBatch { skipped: 0, events });
            }
            self.behind = None;
        }
        Ok(self.live.next().await?)
    }

    fn token(&self) -> String {
        self.store.tail_id.token(self.behind.unwrap_or_else(|| self.live.position()))
    }
}

impl SqliteTail {
    /// Reads the matching entries after a row, and returns the row up to which all were
    /// examined.
    async fn read(&self, after: i64) -> Result<(Vec<Arc<TailedEvent>>, i64), ReadError> {
        let closed = |_| ReadError::Unavailable("the store is closed".to_owned());
        let _permit = self.store.tail_reads.acquire().await.map_err(closed)?;
        // Rows that are committed, but not in the feed yet, are left to the feed.
        let end = self.store.feed.end();
        loop {
            let (id, filter) = (self.store.tail_id, self.filter.clone());
            let read = move |snapshot: &mut Snapshot<'_>| read(snapshot, id, &filter, after, end);
            match self.store.readers.read(ReadKind::Range, read).await {
                Err(ReadError::Overloaded(_)) => tokio::time::sleep(PAUSE).await,
                result => return result,
            }
        }
    }
}

fn read(
    snapshot: &Snapshot<'_>,
    id: TailId,
    filter: &LogQuery,
    after: i64,
    end: i64,
) -> Result<(Vec<Arc<TailedEvent>>, i64), QueryError> {
    let sql = row::select("seq > ?1 AND seq <= ?2 ORDER BY seq");
    let mut select = snapshot.connection().prepare_cached(&sql)?;
    let mut rows = select.query([after, end])?;
    let (mut events, mut position) = (Vec::new(), after);
    let (mut examined, mut examined_bytes, mut size) = (0, 0, BatchSize::default());
    while examined < MAX_ROWS && examined_bytes < MAX_EXAMINED_BYTES {
        snapshot.check()?;
        let Some(row) = rows.next()? else { return Ok((events, end)) };
        let (seq, entry) = (row::read_key(row)?.seq, row::read_entry(row)?);
        let entry_bytes = entry.json_bytes();
        if matches(filter, &entry) {
            if !size.add(entry_bytes) {
                break;
            }
            events.push(Arc::new(id.event(seq, entry)));
        }
        examined += 1;
        examined_bytes += entry_bytes;
        position = seq;
    }
    Ok((events, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_accepted_only_as_it_was_given() {
        for id in [0, 1, -1, i64::MIN].map(TailId) {
            for seq in [0, 1, 0xab_cdef, i64::MAX] {
                assert_eq!(id.parse(&id.token(seq)), Some(seq));
                assert_eq!(TailId(7).parse(&id.token(seq)), None);
            }
            let token = id.token(0xab);
            for wrong in [token.to_uppercase(), format!("{token} "), token.replace("-ab", "-0ab")] {
                assert_eq!(id.parse(&wrong), None, "{wrong}");
            }
        }
        assert_eq!(TailId(1).parse(""), None);
    }
}
