//! Queries: the SQL statements, merging the segments, and metadata filters.

use std::collections::VecDeque;

use eyego_log_core::LogQuery;
use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::row::{self, KEY_COLUMNS, Key, METADATA_AFTER_KEY};
use super::segments::{self, SEGMENT_BITS, Segment};
use crate::domain::repository::Page;

/// Maximum number of keys that are read at a time.
const MAX_KEYS_PER_READ: usize = 256;

/// Returns the page that `query` asks for.
///
/// Keys are read in the query's order from an index, and only the entries of
/// the page are read in full.
pub(super) fn find(connection: &Connection, query: &LogQuery) -> rusqlite::Result<Page> {
    // All statements read the same snapshot.
    let snapshot = connection.unchecked_transaction()?;
    let mut keys = Keys::new(&snapshot, query)?;
    for _ in 0..query.skipped_rows() {
        if keys.next()?.is_none() {
            break;
        }
    }
    let mut entries = Vec::new();
    while let Some(key) = keys.next()? {
        entries.push(row::get_by_seq(&snapshot, key.seq)?);
    }
    Ok(Page::from_one_more(entries, query.limit))
}

/// Iterates over the keys of matching entries in the query's order, up to one
/// past the page. Keys of all users come from the index by time; keys of one
/// user are merged from the segments of the user index.
struct Keys<'a> {
    connection: &'a Connection,
    query: &'a LogQuery,
    /// Maximum number of keys still to return.
    remaining: u64,
    /// Segments that are not open yet, the next one last.
    unopened: Vec<Segment>,
    /// Open sources. Each has at least one buffered key.
    open: Vec<Source>,
}

/// Keys of one segment, or of all entries, in the query's order.
struct Source {
    /// Number of the segment. `None` means all entries.
    segment: Option<i64>,
    buffered: VecDeque<Key>,
    /// Whether no keys follow the buffered ones.
    is_exhausted: bool,
}

impl<'a> Keys<'a> {
    fn new(connection: &'a Connection, query: &'a LogQuery) -> rusqlite::Result<Self> {
        // One key more than the page shows whether there is another page.
        let remaining = query.skipped_rows().saturating_add(u64::from(query.limit) + 1);
        let mut keys =
            Self { connection, query, remaining, unopened: Vec::new(), open: Vec::new() };
        if query.user_id.is_some() {
            keys.unopened = segments::of_query(connection, query)?;
        } else {
            keys.open(None, query.start)?;
        }
        Ok(keys)
    }

    fn next(&mut self) -> rusqlite::Result<Option<Key>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let (index, key) = loop {
            let first = self.peek();
            let may_precede = |segment: &mut Segment| {
                first.is_none_or(|(_, key)| match self.query.order {
                    Order::Descending => segment.latest >= key.timestamp,
                    Order::Ascending => segment.earliest <= key.timestamp,
                })
            };
            if let Some(segment) = self.unopened.pop_if(may_precede) {
                self.open(Some(segment.number), self.query.start)?;
            } else if let Some(first) = first {
                break first;
            } else {
                return Ok(None);
            }
        };
        self.remaining -= 1;
        let source = &mut self.open[index];
        source.buffered.pop_front();
        if source.buffered.is_empty() {
            let Source { segment, is_exhausted, .. } = self.open.swap_remove(index);
            if !is_exhausted && self.remaining > 0 {
                let after = Cursor { timestamp: key.timestamp, id: key.id };
                self.open(segment, Start::After(after))?;
            }
        }
        Ok(Some(key))
    }

    /// Returns the first buffered key and the index of its source.
    fn peek(&self) -> Option<(usize, Key)> {
        let firsts = self.open.iter().enumerate();
        let firsts = firsts.filter_map(|(index, source)| Some((index, *source.buffered.front()?)));
        match self.query.order {
            Order::Descending => firsts.max_by_key(|(_, key)| *key),
            Order::Ascending => firsts.min_by_key(|(_, key)| *key),
        }
    }

    /// Reads keys of the segment, or of all entries, beginning at `start`.
    fn open(&mut self, segment: Option<i64>, start: Start) -> rusqlite::Result<()> {
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(MAX_KEYS_PER_READ);
        let filters = &self.query.metadata;
        let (sql, parameters) = select(self.query, start, segment);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
        let mut buffered = VecDeque::with_capacity(limit);
        let mut is_exhausted = false;
        while buffered.len() < limit {
            let Some(row) = rows.next()? else {
                is_exhausted = true;
                break;
            };
            if !filters.is_empty()
                && !matches_all(filters, row.get_ref(METADATA_AFTER_KEY)?.as_str()?)
            {
                continue;
            }
            buffered.push_back(row::read_key(row)?);
        }
        if !buffered.is_empty() {
            self.open.push(Source { segment, buffered, is_exhausted });
        }
        Ok(())
    }
}

fn matches_all(filters: &[MetadataFilter], metadata: &str) -> bool {
    // Only objects are stored as metadata.
    let metadata: serde_json::Map<_, _> = serde_json::from_str(metadata).unwrap_or_default();
    filters.iter().all(|filter| filter.matches(&metadata))
}

/// Returns the statement that selects keys beginning at `start`, and its
/// parameters.
pub(super) fn select(query: &LogQuery, start: Start, segment: Option<i64>) -> (String, Vec<Value>) {
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
    if let Start::After(cursor) = start {
        let position = vec![
            Value::from(cursor.timestamp.as_millis()),
            Value::from(cursor.id.as_bytes().to_vec()),
        ];
        add(&format!("(timestamp, id) {after} (?, ?)"), position);
    }
    // Without statistics, the planner might sort instead of using the index.
    let index = if segment.is_some() { "logs_by_user" } else { "logs_by_time" };
    let condition =
        if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
    // Without the metadata, the index alone contains all columns.
    let metadata = if query.metadata.is_empty() { "" } else { ", metadata" };
    let sql = format!(
        "SELECT {KEY_COLUMNS}{metadata} FROM logs INDEXED BY {index} WHERE {condition} \
         ORDER BY timestamp {direction}, id {direction}"
    );
    (sql, parameters)
}
