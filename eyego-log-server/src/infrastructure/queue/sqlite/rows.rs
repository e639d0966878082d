//! The rows of the queue: the statements that a transaction of the writer is
//! made of, and where they leave the queue. Who waits for it is not known here.

use eyego_log_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::status::Positions;
use crate::domain::queue::{Offset, RecordBatch};
use crate::infrastructure::embedded;

/// Offsets are ours to give, from 1, without gaps: the larger of one past the
/// last row and the committed offset. Rows are deleted below the committed
/// offset only, so none is given twice, also after all rows are gone; SQLite's
/// AUTOINCREMENT would write a second table to promise the same. The key is
/// not kept: with one partition it decides nothing, and the value has it.
pub(super) const SCHEMA: &str = "
    CREATE TABLE records (
        offset    INTEGER PRIMARY KEY,
        queued_at INTEGER NOT NULL,
        value     BLOB
    );
    CREATE TABLE committed (
        only_row    INTEGER PRIMARY KEY CHECK (only_row = 0),
        next_offset INTEGER NOT NULL
    );
    INSERT INTO committed VALUES (0, 1);
";

/// What a row takes beside its value.
const ROW_BYTES: u64 = 16;

/// Where the queue begins and ends, and how large it is; each change is of the
/// transaction that is open, and counts when that is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) positions: Positions,
    /// There is no row below this offset.
    deleted_below: Offset,
    /// What the rows take on disk.
    pub(super) used_bytes: u64,
}

impl Extent {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let ask = |sql: &str| -> rusqlite::Result<Option<Offset>> {
            connection.query_row(sql, [], |row| row.get(0)).optional()
        };
        let committed = ask("SELECT next_offset FROM committed")?.unwrap_or(1);
        let last = ask("SELECT offset FROM records ORDER BY offset DESC LIMIT 1")?;
        let first = ask("SELECT offset FROM records ORDER BY offset LIMIT 1")?;
        let end = last.map_or(committed, |last| committed.max(last + 1));
        Ok(Self {
            positions: Positions { end, committed },
            deleted_below: first.unwrap_or(end),
            used_bytes: used_bytes(connection)?,
        })
    }

    /// Appends each batch for which there is room; answers for which there was.
    pub(super) fn insert<'a>(
        &mut self,
        connection: &Connection,
        batches: impl Iterator<Item = &'a RecordBatch>,
        max_bytes: u64,
        queued_at: Timestamp,
    ) -> rusqlite::Result<Vec<bool>> {
        let mut insert = connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3)")?;
        let mut had_room = Vec::new();
        for batch in batches {
            let bytes = self.used_bytes.saturating_add(disk_bytes(batch));
            had_room.push(bytes <= max_bytes);
            if bytes > max_bytes {
                continue;
            }
            self.used_bytes = bytes;
            for record in batch.iter() {
                insert.raw_bind_parameter(1, self.positions.end)?;
                insert.raw_bind_parameter(2, queued_at.as_millis())?;
                insert.raw_bind_parameter(3, record.value)?;
                insert.raw_execute()?;
                self.positions.end += 1;
            }
        }
        Ok(had_room)
    }

    /// Moves the committed offset forward, to the end at most: past it, it
    /// would jump over records that are yet to come.
    pub(super) fn commit(
        &mut self,
        connection: &Connection,
        next_offset: Offset,
    ) -> rusqlite::Result<()> {
        let committed = next_offset.min(self.positions.end);
        if committed > self.positions.committed {
            let mut update = connection.prepare_cached("UPDATE committed SET next_offset = ?1")?;
            update.execute([committed])?;
            self.positions.committed = committed;
        }
        Ok(())
    }

    pub(super) fn has_deletable(&self) -> bool {
        self.deleted_below < self.positions.committed
    }

    /// Deletes rows that are committed, so many at most.
    pub(super) fn delete(&mut self, connection: &Connection, at_most: i64) -> rusqlite::Result<()> {
        if self.has_deletable() {
            let below = self.positions.committed.min(self.deleted_below + at_most);
            connection.prepare_cached("DELETE FROM records WHERE offset < ?1")?.execute([below])?;
            self.deleted_below = below;
        }
        Ok(())
    }

    /// Counts what is in use, after it was estimated.
    pub(super) fn measure(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.used_bytes = used_bytes(connection)?;
        Ok(())
    }
}

/// Writes something, to show that it can be done.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE committed SET next_offset = next_offset", []).map(drop)
}

/// About what the batch will take. What it did take is measured at the end of
/// the transaction: the difference is how far the file may overshoot.
fn disk_bytes(batch: &RecordBatch) -> u64 {
    let records = u64::try_from(batch.len()).unwrap_or(u64::MAX);
    let bytes = u64::try_from(batch.size()).unwrap_or(u64::MAX);
    bytes.saturating_add(records.saturating_mul(ROW_BYTES))
}

/// The pages that hold something: what the disk sees, and cheaper than a sum
/// over the values, which each start would have to count anew.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let ask = |sql: &str| -> rusqlite::Result<u32> {
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
    };
    let pages = ask("PRAGMA page_count")?.saturating_sub(ask("PRAGMA freelist_count")?);
    Ok(u64::from(pages) * u64::from(embedded::PAGE_BYTES))
}
