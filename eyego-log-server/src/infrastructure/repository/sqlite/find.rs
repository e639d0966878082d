//! How a query becomes SQL, and how conditions on metadata are judged.

use eyego_log_core::LogQuery;
use eyego_log_core::query::{MetadataFilter, Order, Start};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::logs::{COLUMNS, METADATA, read_entry};
use crate::domain::repository::Page;

/// The logs that match.
///
/// Rows come in order out of an index, so that a page costs what it reads.
/// Conditions on metadata are judged here, by the rule that core states, on
/// the rows that all others let through; what a row holds besides is read
/// only if it matches.
pub(super) fn find(connection: &Connection, query: &LogQuery) -> rusqlite::Result<Page> {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let filters = &query.metadata;
    let mut to_skip = query.skipped_rows();
    let (sql, mut parameters) = select(query);
    if filters.is_empty() {
        parameters.push(Value::from(i64::from(query.limit) + 1));
        parameters.push(Value::from(i64::try_from(to_skip).unwrap_or(i64::MAX)));
        to_skip = 0;
    } else {
        parameters.push(Value::from(-1)); // no limit
        parameters.push(Value::from(0));
    }

    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        if !filters.is_empty() && !matches_all(filters, row.get_ref(METADATA)?.as_str()?) {
            continue;
        }
        if to_skip > 0 {
            to_skip -= 1;
            continue;
        }
        entries.push(read_entry(row)?);
        if entries.len() > limit {
            break;
        }
    }
    Ok(Page::from_one_more(entries, query.limit))
}

fn matches_all(filters: &[MetadataFilter], metadata: &str) -> bool {
    // It was checked to be an object when it was stored.
    let metadata: serde_json::Map<_, _> = serde_json::from_str(metadata).unwrap_or_default();
    filters.iter().all(|filter| filter.matches(&metadata))
}

/// The statement, and its parameters but for the last two, limit and offset.
pub(super) fn select(query: &LogQuery) -> (String, Vec<Value>) {
    let (direction, past) = match query.order {
        Order::Descending => ("DESC", "<"),
        Order::Ascending => ("ASC", ">"),
    };
    let mut conditions = Vec::new();
    let mut parameters = Vec::new();
    let mut add = |condition: &str, values: Vec<Value>| {
        conditions.push(condition.to_owned());
        parameters.extend(values);
    };
    if let Some(user_id) = &query.user_id {
        add("user_id = ?", vec![Value::from(user_id.clone())]);
    }
    if let Some(action) = &query.action {
        add("action = ?", vec![Value::from(action.clone())]);
    }
    if let Some(from) = query.from {
        add("timestamp >= ?", vec![Value::from(from.as_millis())]);
    }
    if let Some(to) = query.to {
        add("timestamp < ?", vec![Value::from(to.as_millis())]);
    }
    if let Start::After(cursor) = query.start {
        let place = vec![
            Value::from(cursor.timestamp.as_millis()),
            Value::from(cursor.id.as_bytes().to_vec()),
        ];
        add(&format!("(timestamp, id) {past} (?, ?)"), place);
    }
    // The planner has no figures of this file and might sort instead.
    let index = if query.user_id.is_some() { "logs_by_user" } else { "logs_by_time" };
    let condition =
        if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
    let sql = format!(
        "SELECT {COLUMNS} FROM logs INDEXED BY {index} WHERE {condition} \
         ORDER BY timestamp {direction}, id {direction} LIMIT ? OFFSET ?"
    );
    (sql, parameters)
}
