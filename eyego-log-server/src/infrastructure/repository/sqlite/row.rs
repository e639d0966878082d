//! Rows of the table of log entries: their columns, and how rows are read. All
//! column positions are in this file.

use eyego_log_core::query::Cursor;
use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

/// Columns of a key, in the order that [`read_key`] expects.
pub(super) const KEY_COLUMNS: &str = "timestamp, id, seq";

/// Columns that, after [`KEY_COLUMNS`], make a whole row, in the order that
/// [`read_entry`] expects.
pub(super) const COLUMNS_AFTER_KEY: &str = ", action, metadata, user_id, received_at";

/// Positions of columns in a statement that selects them in this order.
pub(super) const ACTION_AFTER_KEY: usize = 3;
pub(super) const METADATA_AFTER_KEY: usize = 4;
pub(super) const USER_AFTER_KEY: usize = 5;
const RECEIVED_AT_AFTER_KEY: usize = 6;

/// Position of a log entry in the query's order, and the place of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) timestamp: Timestamp,
    pub(super) id: LogId,
    pub(super) seq: i64,
}

impl Key {
    /// Returns the position without the place.
    pub(super) fn cursor(self) -> Cursor {
        Cursor { timestamp: self.timestamp, id: self.id }
    }
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
    connection.prepare_cached(&select("id = ?1"))?.query_row([id.as_bytes()], read_entry).optional()
}

/// Returns the statement that selects the row with a number.
pub(super) fn select_by_seq() -> String {
    select("seq = ?1")
}

/// Returns the statement that selects whole rows.
pub(super) fn select(condition: &str) -> String {
    format!("SELECT {KEY_COLUMNS}{COLUMNS_AFTER_KEY} FROM logs WHERE {condition}")
}

/// Reads the entry in a row of [`KEY_COLUMNS`] and [`COLUMNS_AFTER_KEY`].
pub(super) fn read_entry(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    let invalid = |column, reason: &str| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
    };
    let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?));
    let empty = |column| invalid(column, "it is empty");
    let user_id = UserId::from_stored(text(USER_AFTER_KEY)?);
    let action = Action::from_stored(text(ACTION_AFTER_KEY)?);
    let metadata = Metadata::from_stored(text(METADATA_AFTER_KEY)?);
    let mut entry = LogEntry::new(
        LogId::from_bytes(row.get(1)?),
        user_id.ok_or_else(|| empty(USER_AFTER_KEY))?,
        action.ok_or_else(|| empty(ACTION_AFTER_KEY))?,
        Timestamp::from_millis_clamped(row.get(0)?),
        metadata.ok_or_else(|| invalid(METADATA_AFTER_KEY, "it is not an object"))?,
    );
    entry.received_at =
        row.get::<_, Option<i64>>(RECEIVED_AT_AFTER_KEY)?.map(Timestamp::from_millis_clamped);
    Ok(entry)
}
