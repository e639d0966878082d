//! Rows of the table of log entries: their columns, and how rows are read. All
//! column positions are in this file.

use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

/// Columns of a whole row, in the order that [`read_entry`] expects.
pub(super) const ENTRY_COLUMNS: &str = "id, user_id, action, timestamp, received_at, metadata";

/// Columns of a key, in the order that [`read_key`] expects.
pub(super) const KEY_COLUMNS: &str = "timestamp, id, seq";

/// Positions of the action and the metadata in a statement that selects them after
/// [`KEY_COLUMNS`].
pub(super) const ACTION_AFTER_KEY: usize = 3;
pub(super) const METADATA_AFTER_KEY: usize = 4;

/// Position of the row number in a statement that selects it after [`ENTRY_COLUMNS`].
pub(super) const SEQ_AFTER_ENTRY: usize = 6;

/// Position of a log entry in the query's order, and the place of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) timestamp: Timestamp,
    pub(super) id: LogId,
    pub(super) seq: i64,
}

/// Reads the key in a row of [`KEY_COLUMNS`].
pub(super) fn read_key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        timestamp: Timestamp::from_millis_clamped(row.get(0)?),
        id: LogId::from_bytes(row.get(1)?),
        seq: row.get(2)?,
    })
}

/// Returns the entry with this id.
pub(super) fn get(connection: &Connection, id: LogId) -> rusqlite::Result<Option<LogEntry>> {
    connection
        .prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM logs WHERE id = ?1"))?
        .query_row([id.as_bytes()], read_entry)
        .optional()
}

/// Returns the entry in the row with this number.
pub(super) fn get_by_seq(connection: &Connection, seq: i64) -> rusqlite::Result<LogEntry> {
    connection
        .prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM logs WHERE seq = ?1"))?
        .query_row([seq], read_entry)
}

/// Reads the entry in a row of [`ENTRY_COLUMNS`].
pub(super) fn read_entry(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    const METADATA: usize = 5;

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
