//! The SQL statements of queries, and the filters that they do not contain.

use eyego_log_core::LogQuery;
use eyego_log_core::query::{MetadataFilter, Order, Start};
use rusqlite::Row;
use rusqlite::types::Value;

use super::row::{ACTION_AFTER_KEY, KEY_COLUMNS, METADATA_AFTER_KEY};
use super::segments::SEGMENT_BITS;

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
