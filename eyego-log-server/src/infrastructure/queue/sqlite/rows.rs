//! The rows of the queue: the statements that a transaction of the writer is
//! made of, and where they leave the queue. Who waits for it is not known here.

use eyego_log_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::chunk::{self, Chunk};
use super::status::Positions;
use crate::domain::queue::Offset;
use crate::domain::record_batch::RecordBatch;
use crate::infrastructure::embedded;

/// Offsets are ours to give, one to each record, from 1, without gaps: the
/// larger of one past the last chunk and the committed offset. Chunks are
/// deleted below the committed offset only, so none is given twice, also after
/// all rows are gone; SQLite's AUTOINCREMENT would write a second table to
/// promise the same. The key is not kept: with one partition it decides
/// nothing, and the value has it.
pub(super) const SCHEMA: &str = "
    CREATE TABLE chunks (
        first_offset INTEGER PRIMARY KEY,
        records      INTEGER NOT NULL,
        queued_at    INTEGER NOT NULL,
        bytes        BLOB NOT NULL
    );
    CREATE TABLE quarantined (
        first_offset INTEGER PRIMARY KEY,
        records      INTEGER NOT NULL,
        queued_at    INTEGER NOT NULL,
        bytes        BLOB NOT NULL
    );
    CREATE TABLE committed (
        only_row    INTEGER PRIMARY KEY CHECK (only_row = 0),
        next_offset INTEGER NOT NULL
    );
    INSERT INTO committed VALUES (0, 1);
";

/// What a row takes beside its chunk, about.
const ROW_BYTES: u64 = 16;

/// With more than half of the room left, what is in use is estimated for so
/// many transactions: to ask costs SQLite as much as to write a row.
const ESTIMATED: u32 = 16;

/// What became of the batches of a transaction.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    /// For which of them there was room.
    pub(super) had_room: Vec<bool>,
    /// The rows' length.
    pub(super) bytes: usize,
}

/// Where the queue begins and ends, and how large it is; each change is of the
/// transaction that is open, and counts when that is durable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) positions: Positions,
    /// Where the first chunk ends, if there is one.
    first_end: Option<Offset>,
    /// What the rows take on disk.
    pub(super) used_bytes: u64,
    /// It was measured so many transactions ago.
    estimated: u32,
}

impl Extent {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let ask = |sql: &str| -> rusqlite::Result<Option<Offset>> {
            connection.query_row(sql, [], |row| row.get(0)).optional()
        };
        let committed = ask("SELECT next_offset FROM committed")?.unwrap_or(1);
        let last_end =
            ask("SELECT first_offset + records FROM chunks ORDER BY first_offset DESC LIMIT 1")?;
        let end = last_end.map_or(committed, |end| committed.max(end));
        Ok(Self {
            positions: Positions { end, committed },
            first_end: first_end(connection)?,
            used_bytes: used_bytes(connection)?,
            estimated: 0,
        })
    }

    /// Appends each batch for which there is room. The chunk is memory to work
    /// in.
    pub(super) fn insert<'a>(
        &mut self,
        connection: &Connection,
        chunk: &mut Chunk,
        batches: impl Iterator<Item = &'a RecordBatch>,
        max_bytes: u64,
        queued_at: Timestamp,
    ) -> rusqlite::Result<Inserted> {
        let mut inserted = Inserted::default();
        // A transaction that failed may have left it half done.
        chunk.clear();
        for batch in batches {
            let bytes = self.used_bytes.saturating_add(disk_bytes(batch));
            inserted.had_room.push(bytes <= max_bytes);
            if bytes > max_bytes {
                continue;
            }
            self.used_bytes = bytes;
            for record in batch.iter() {
                chunk.push(record.value);
                if chunk.is_full() {
                    inserted.bytes += self.insert_chunk(connection, chunk, queued_at)?;
                }
            }
        }
        inserted.bytes += self.insert_chunk(connection, chunk, queued_at)?;
        Ok(inserted)
    }

    /// Answers with the length of the row.
    fn insert_chunk(
        &mut self,
        connection: &Connection,
        chunk: &mut Chunk,
        queued_at: Timestamp,
    ) -> rusqlite::Result<usize> {
        let records = chunk.records();
        if records == 0 {
            return Ok(0);
        }
        let first = self.positions.end;
        let row = chunk.pack();
        let bytes = row.len();
        connection.prepare_cached("INSERT INTO chunks VALUES (?1, ?2, ?3, ?4)")?.execute((
            first,
            records,
            queued_at.as_millis(),
            row,
        ))?;
        self.positions.end = first + Offset::from(records);
        self.first_end.get_or_insert(self.positions.end);
        chunk.clear();
        Ok(bytes)
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
        self.first_end.is_some_and(|end| end <= self.positions.committed)
    }

    /// Deletes chunks that are committed, so many at most.
    pub(super) fn delete(&mut self, connection: &Connection, at_most: u32) -> rusqlite::Result<()> {
        if self.has_deletable() {
            connection
                .prepare_cached(
                    "DELETE FROM chunks WHERE first_offset IN (
                         SELECT first_offset FROM chunks
                         WHERE first_offset < ?1 + 0 AND first_offset + records <= ?1
                         ORDER BY first_offset LIMIT ?2)",
                )?
                .execute((self.positions.committed, at_most))?;
            self.first_end = first_end(connection)?;
        }
        Ok(())
    }

    /// Counts what is in use, if it was estimated for long enough or the limit
    /// is near.
    pub(super) fn measure(
        &mut self,
        connection: &Connection,
        max_bytes: u64,
    ) -> rusqlite::Result<()> {
        self.estimated += 1;
        if self.estimated >= ESTIMATED || self.used_bytes > max_bytes / 2 {
            self.used_bytes = used_bytes(connection)?;
            self.estimated = 0;
        }
        Ok(())
    }
}

/// Writes something, to show that it can be done.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE committed SET next_offset = next_offset", []).map(drop)
}

/// Keeps a copy of the chunk with this record, for a person to look at.
pub(super) fn quarantined(connection: &Connection, offset: Offset) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO quarantined
        SELECT * FROM chunks WHERE first_offset <= ?1 + 0 ORDER BY first_offset DESC LIMIT 1";
    connection.execute(sql, [offset]).map(drop)
}

/// Takes a chunk over from another file.
pub(super) fn take_over(connection: &Connection, chunk: &StoredChunk) -> rusqlite::Result<()> {
    let StoredChunk { first_offset, records, queued_at, bytes } = chunk;
    insert_row(connection, *first_offset, *records, *queued_at, bytes)
}

fn insert_row(
    connection: &Connection,
    first_offset: Offset,
    records: u32,
    queued_at: Timestamp,
    bytes: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO chunks VALUES (?1, ?2, ?3, ?4)")?
        .execute((first_offset, records, queued_at.as_millis(), bytes))
        .map(drop)
}

/// Where consumption goes on in what was taken over: where it stood in the file
/// that it comes from (what is missing there is found and counted), or else
/// with the first that is left.
pub(super) fn begin_at(connection: &Connection, committed: Option<Offset>) -> rusqlite::Result<()> {
    let sql = "UPDATE committed SET next_offset =
        coalesce(?1, (SELECT min(first_offset) FROM chunks), 1)";
    connection.execute(sql, [committed]).map(drop)
}

/// A chunk as it lies on the disk.
pub(super) struct StoredChunk {
    pub(super) first_offset: Offset,
    /// How many records it was written with.
    pub(super) records: u32,
    pub(super) queued_at: Timestamp,
    pub(super) bytes: Vec<u8>,
}

impl StoredChunk {
    /// From the columns of `chunks`, in their order.
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first_offset: row.get(0)?,
            records: row.get(1)?,
            queued_at: Timestamp::from_millis_clamped(row.get(2)?),
            bytes: row.get(3)?,
        })
    }
}

/// The chunk that the record of this offset lies in; if there is none, the
/// next one.
pub(super) fn chunk_at(
    connection: &Connection,
    offset: Offset,
) -> rusqlite::Result<Option<StoredChunk>> {
    // One statement, so one view of the file: between two, the writer may commit
    // the chunk in question and the one after it, and the second statement
    // would find the latter. `+ 0` hides the parameter from the planner, which
    // would plan anew for every other value.
    let sql = "SELECT * FROM chunks
        WHERE first_offset >= coalesce(
            (SELECT max(first_offset) FROM chunks WHERE first_offset <= ?1 + 0), 0)
        AND first_offset + records > ?1
        ORDER BY first_offset LIMIT 1";
    connection.prepare_cached(sql)?.query_row([offset], StoredChunk::from_row).optional()
}

fn first_end(connection: &Connection) -> rusqlite::Result<Option<Offset>> {
    connection
        .prepare_cached("SELECT first_offset + records FROM chunks ORDER BY first_offset LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()
}

/// About what the batch will take. Near the limit what it did take is measured at
/// the end of the transaction: the difference is how far the file may overshoot.
fn disk_bytes(batch: &RecordBatch) -> u64 {
    let records = u64::try_from(batch.len()).unwrap_or(u64::MAX);
    let bytes = u64::try_from(batch.size()).unwrap_or(u64::MAX);
    bytes.saturating_add(records.saturating_mul(chunk::HEADER as u64)).saturating_add(ROW_BYTES)
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
