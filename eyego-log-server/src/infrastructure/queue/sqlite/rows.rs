//! The tables of the queue, and the statements of the writer's transactions
//! (ADR 0008).

use eyego_log_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::chunk::{self, Chunk};
use super::positions::Positions;
use crate::domain::queue::Offset;
use crate::domain::record_batch::RecordBatch;
use crate::infrastructure::embedded;

/// Version of the file's format.
pub(super) const VERSION: i32 = 4;

/// Offsets are assigned here, one per record, from 1, without gaps: the next is
/// the larger of the committed offset and the end of the last chunk. Only
/// chunks below the committed offset are deleted, so no offset is assigned
/// twice. AUTOINCREMENT would write a second table for the same guarantee.
///
/// Keys are not stored: with one partition they decide nothing, and the value
/// contains them.
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

/// Approximate size of a row in addition to its chunk.
const ROW_BYTES: u64 = 16;

/// While less than half of the limit is in use, the size is measured once per
/// this many transactions and estimated in between: a measurement costs as much
/// as writing a row.
const MEASURE_INTERVAL: u32 = 16;

/// Result of inserting the batches of a transaction.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    /// For each batch, whether it was inserted; if not, the queue is full.
    pub(super) had_room: Vec<bool>,
    /// Total size of the rows, in bytes.
    pub(super) bytes: usize,
}

/// Positions and size of the queue. Changes belong to the open transaction and
/// take effect when it is durable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) positions: Positions,
    /// End of the first chunk, if there is one.
    first_end: Option<Offset>,
    /// Size of the rows on disk.
    pub(super) used_bytes: u64,
    /// Transactions since the size was measured.
    estimated: u32,
}

impl Extent {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let query = |sql: &str| -> rusqlite::Result<Option<Offset>> {
            connection.query_row(sql, [], |row| row.get(0)).optional()
        };
        let committed = query("SELECT next_offset FROM committed")?.unwrap_or(1);
        let last_end =
            query("SELECT first_offset + records FROM chunks ORDER BY first_offset DESC LIMIT 1")?;
        let end = last_end.map_or(committed, |end| committed.max(end));
        Ok(Self {
            positions: Positions { end, committed },
            first_end: first_end(connection)?,
            used_bytes: used_bytes(connection)?,
            estimated: 0,
        })
    }

    /// Appends each batch for which there is room, using `chunk` as a buffer.
    pub(super) fn insert<'a>(
        &mut self,
        connection: &Connection,
        chunk: &mut Chunk,
        batches: impl Iterator<Item = &'a RecordBatch>,
        max_bytes: u64,
        queued_at: Timestamp,
    ) -> rusqlite::Result<Inserted> {
        let mut inserted = Inserted::default();
        // A failed transaction may have left records in it.
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

    /// Inserts the chunk, clears it, and returns the size of its row.
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
        let first_offset = self.positions.end;
        let row = chunk.encode();
        let bytes = row.len();
        insert_row(connection, first_offset, records, queued_at, row)?;
        self.positions.end = first_offset + Offset::from(records);
        self.first_end.get_or_insert(self.positions.end);
        chunk.clear();
        Ok(bytes)
    }

    /// Moves the committed offset forward, at most to the end. Beyond the end,
    /// it would skip records that are appended later.
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

    /// Deletes up to `max_chunks` committed chunks.
    pub(super) fn delete(
        &mut self,
        connection: &Connection,
        max_chunks: u32,
    ) -> rusqlite::Result<()> {
        if self.has_deletable() {
            connection
                .prepare_cached(
                    "DELETE FROM chunks WHERE first_offset IN (
                         SELECT first_offset FROM chunks
                         WHERE first_offset < ?1 + 0 AND first_offset + records <= ?1
                         ORDER BY first_offset LIMIT ?2)",
                )?
                .execute((self.positions.committed, max_chunks))?;
            self.first_end = first_end(connection)?;
        }
        Ok(())
    }

    /// Measures the size if it was estimated for long enough or the limit is
    /// near.
    pub(super) fn measure(
        &mut self,
        connection: &Connection,
        max_bytes: u64,
    ) -> rusqlite::Result<()> {
        self.estimated += 1;
        if self.estimated >= MEASURE_INTERVAL || self.used_bytes > max_bytes / 2 {
            self.used_bytes = used_bytes(connection)?;
            self.estimated = 0;
        }
        Ok(())
    }
}

/// Verifies that the file can be written.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE committed SET next_offset = next_offset", []).map(drop)
}

/// Copies the chunk that contains this record to the table `quarantined`, for
/// an operator to inspect.
pub(super) fn quarantine(connection: &Connection, offset: Offset) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO quarantined
        SELECT * FROM chunks WHERE first_offset <= ?1 + 0 ORDER BY first_offset DESC LIMIT 1";
    connection.execute(sql, [offset]).map(drop)
}

/// Inserts a chunk from another file.
pub(super) fn import(connection: &Connection, chunk: &StoredChunk) -> rusqlite::Result<()> {
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

/// Sets the committed offset of a file with imported records: that of the
/// original file if it is known (missing records are then detected and
/// counted), otherwise the first imported offset.
pub(super) fn set_committed(
    connection: &Connection,
    committed: Option<Offset>,
) -> rusqlite::Result<()> {
    let sql = "UPDATE committed SET next_offset =
        coalesce(?1, (SELECT min(first_offset) FROM chunks), 1)";
    connection.execute(sql, [committed]).map(drop)
}

/// A row of `chunks`.
pub(super) struct StoredChunk {
    pub(super) first_offset: Offset,
    /// Number of records when the chunk was written.
    pub(super) records: u32,
    pub(super) queued_at: Timestamp,
    pub(super) bytes: Vec<u8>,
}

impl StoredChunk {
    /// Reads all columns of `chunks`, in their order.
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first_offset: row.get(0)?,
            records: row.get(1)?,
            queued_at: Timestamp::from_millis_clamped(row.get(2)?),
            bytes: row.get(3)?,
        })
    }
}

/// Returns the chunk that contains this offset. If there is none, returns the
/// next chunk.
pub(super) fn chunk_at(
    connection: &Connection,
    offset: Offset,
) -> rusqlite::Result<Option<StoredChunk>> {
    // One statement sees one snapshot. With two, the writer could commit this
    // chunk and the next one in between, and the second statement would skip
    // this one. `+ 0` hides the parameter from the planner, which would
    // otherwise prepare the statement again for each value.
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

/// Estimates the size of a batch on disk, ignoring compression. Near the limit
/// the size is measured after each transaction, so the file exceeds the limit
/// at most by the error of one transaction's estimate.
fn disk_bytes(batch: &RecordBatch) -> u64 {
    let records = u64::try_from(batch.len()).unwrap_or(u64::MAX);
    let bytes = u64::try_from(batch.size()).unwrap_or(u64::MAX);
    bytes.saturating_add(records.saturating_mul(chunk::HEADER as u64)).saturating_add(ROW_BYTES)
}

/// Returns the size of the pages in use, which is cheaper than adding up the
/// rows.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let query = |sql: &str| -> rusqlite::Result<u32> {
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
    };
    let pages = query("PRAGMA page_count")?.saturating_sub(query("PRAGMA freelist_count")?);
    Ok(u64::from(pages) * u64::from(embedded::PAGE_BYTES))
}
