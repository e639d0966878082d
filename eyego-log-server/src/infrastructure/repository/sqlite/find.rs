//! Queries: the pages, the SQL statements, and filters.

use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use eyego_log_core::{LogEntry, LogQuery};
use rusqlite::Row;
use rusqlite::types::Value;

use super::keys::Keys;
use super::readers::{QueryError, Snapshot};
use super::row::{self, ACTION_AFTER_KEY, COLUMNS_AFTER_KEY, KEY_COLUMNS, METADATA_AFTER_KEY};
use super::segments::{self, SEGMENT_BITS};
use crate::domain::read::{Page, PageBuilder, ReadMemory};

/// Returns the page that `query` asks for.
pub(super) fn find(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    memory: &dyn ReadMemory,
) -> Result<Page, QueryError> {
    let mut page = PageBuilder::new(query.limit, memory);
    if segments::divide(query) {
        find_by_keys(snapshot, query, &mut page)?;
    } else {
        find_by_time(snapshot, query, &mut page)?;
    }
    Ok(page.finish())
}

/// Merges the keys of matching entries from the segments, and reads in full only the
/// entries of the page.
fn find_by_keys(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    page: &mut PageBuilder<'_, LogEntry>,
) -> Result<(), QueryError> {
    let mut entry = snapshot.connection().prepare_cached(&row::select_by_seq())?;
    let mut keys = Keys::new(snapshot, query)?;
    for _ in 0..query.skipped_rows() {
        if keys.next()?.is_none() {
            break;
        }
    }
    while let Some(key) = keys.next()? {
        if page.push(entry.query_row([key.seq], row::read_entry)?)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Reads the entries in the order of the index by time.
fn find_by_time(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    page: &mut PageBuilder<'_, LogEntry>,
) -> Result<(), QueryError> {
    let mut start = query.start;
    if query.skipped_rows() > 0 {
        // Without metadata filters, keys are skipped in the index alone.
        let Some(skipped) = last_skipped(snapshot, query)? else { return Ok(()) };
        start = Start::After(skipped);
    }
    while let Some(examined) = read_by_time(snapshot, query, start, page)? {
        // The read ended early, for a checkpoint.
        start = Start::After(examined);
        snapshot.renew()?;
    }
    Ok(())
}

/// Returns the position of the last entry before the page, if there are as many.
fn last_skipped(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
) -> Result<Option<Cursor>, QueryError> {
    let mut keys = Keys::new(snapshot, query)?;
    let mut last = None;
    for _ in 0..query.skipped_rows() {
        last = keys.next()?;
        if last.is_none() {
            break;
        }
    }
    Ok(last.map(|key| Cursor { timestamp: key.timestamp, id: key.id }))
}

/// Adds entries to the page, beginning at `start`. Stops early if a checkpoint needs
/// the snapshot back, and returns the position reached.
fn read_by_time(
    snapshot: &Snapshot<'_>,
    query: &LogQuery,
    start: Start,
    page: &mut PageBuilder<'_, LogEntry>,
) -> Result<Option<Cursor>, QueryError> {
    let (sql, parameters) = select_columns(query, COLUMNS_AFTER_KEY, start, None);
    let mut statement = snapshot.connection().prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
    while let Some(row) = rows.next()? {
        // Without metadata filters, SQLite's progress handler checks often enough.
        if !query.metadata.is_empty() {
            snapshot.check()?;
        }
        if matches(query, row)? && page.push(row::read_entry(row)?)?.is_break() {
            break;
        }
        if snapshot.is_wanted_back() {
            let key = row::read_key(row)?;
            return Ok(Some(Cursor { timestamp: key.timestamp, id: key.id }));
        }
    }
    Ok(None)
}

/// Returns `true` if the row matches the filters that the statement does not
/// contain.
///
/// They are not part of it because SQLite would search for the next match on its
/// own, and could only be stopped by losing the position.
pub(super) fn matches(query: &LogQuery, row: &Row<'_>) -> rusqlite::Result<bool> {
    if let Some(action) = &query.action
        && row.get_ref(ACTION_AFTER_KEY)?.as_str()? != action
    {
        return Ok(false);
    }
    Ok(query.metadata.is_empty()
        || matches_all(&query.metadata, row.get_ref(METADATA_AFTER_KEY)?.as_str()?))
}

fn matches_all(filters: &[MetadataFilter], metadata: &str) -> bool {
    let metadata = parse_metadata(metadata);
    filters.iter().all(|filter| filter.matches(&metadata))
}

pub(super) fn parse_metadata(text: &str) -> serde_json::Map<String, serde_json::Value> {
    // Only objects are stored as metadata.
    serde_json::from_str(text).unwrap_or_default()
}

/// Returns the statement that selects keys beginning at `start`, and its
/// parameters.
pub(super) fn select(query: &LogQuery, start: Start, segment: Option<i64>) -> (String, Vec<Value>) {
    // Without metadata, the index alone contains all columns.
    let filtered = match (&query.action, query.metadata.is_empty()) {
        (None, true) => "",
        (Some(_), true) => ", action",
        (_, false) => ", action, metadata",
    };
    select_columns(query, filtered, start, segment)
}

/// Returns the statement of [`select`] with these columns after the key.
pub(super) fn select_columns(
    query: &LogQuery,
    columns: &str,
    start: Start,
    segment: Option<i64>,
) -> (String, Vec<Value>) {
    let (direction, after) = match query.order {
        Order::Descending => ("DESC", "<"),
        Order::Ascending => ("ASC", ">"),
    };
    let mut conditions = Vec::new();
    let mut parameters = Vec::new();
    let mut add = |condition: &str, values: Vec<Value>| {
        conditions.push(condition.to_owned());
        parameters.extend(values);
    };
    if let Some(segment) = segment {
        add(&format!("seq >> {SEGMENT_BITS} = ?"), vec![Value::from(segment)]);
    }
    // Without statistics, the planner might sort instead of using the index.
    let index = match (segment, &query.user_id, &query.action) {
        (Some(_), Some(user_id), _) => {
            add("user_id = ?", vec![Value::from(user_id.clone())]);
            "logs_by_user"
        }
        (Some(_), None, Some(action)) => {
            add("action = ?", vec![Value::from(action.clone())]);
            "logs_by_action"
        }
        (Some(_), None, None) | (None, ..) => "logs_by_time",
    };
    if let Some(from) = query.from {
        add("timestamp >= ?", vec![Value::from(from.as_millis())]);
    }
    if let Some(to) = query.to {
        add("timestamp < ?", vec![Value::from(to.as_millis())]);
    }
    if let Start::After(cursor) = start {
        let position = vec![
            Value::from(cursor.timestamp.as_millis()),
            Value::from(cursor.id.as_bytes().to_vec()),
        ];
        add(&format!("(timestamp, id) {after} (?, ?)"), position);
    }
    let condition =
        if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
    let sql = format!(
        "SELECT {KEY_COLUMNS}{columns} FROM logs INDEXED BY {index} WHERE {condition} \
         ORDER BY timestamp {direction}, id {direction}"
    );
    (sql, parameters)
}
