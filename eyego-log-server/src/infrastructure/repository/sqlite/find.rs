//! Queries: the SQL statements, merging the segments, and filters.

use std::collections::VecDeque;

use eyego_log_core::LogQuery;
use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use rusqlite::Row;
use rusqlite::types::Value;

use super::readers::{QueryError, Snapshot};
use super::row::{self, ACTION_AFTER_KEY, KEY_COLUMNS, Key, METADATA_AFTER_KEY};
use super::segments::{self, SEGMENT_BITS, Segment};
use crate::domain::read::{Page, PageBuilder, ReadMemory};

/// Maximum number of keys that are read at a time.
const MAX_KEYS_PER_READ: usize = 256;

/// Returns the page that `query` asks for.
///
/// Keys are read in the query's order from an index, and only the entries of
/// the page are read in full.
pub(super) fn find(
    snapshot: &mut Snapshot<'_>,
    query: &LogQuery,
    memory: &dyn ReadMemory,
) -> Result<Page, QueryError> {
    let connection = snapshot.connection();
    let mut keys = Keys::new(snapshot, query)?;
    for _ in 0..query.skipped_rows() {
        if keys.next()?.is_none() {
            break;
        }
    }
    let mut page = PageBuilder::new(query.limit, memory);
    while let Some(key) = keys.next()? {
        if page.push(row::get_by_seq(connection, key.seq)?)?.is_break() {
            break;
        }
    }
    Ok(page.finish())
}

/// Iterates over the keys of matching entries in the query's order, up to one
/// past the page. Keys of one user or one action are merged from the segments of
/// the index by user or by action; all others come from the index by time.
struct Keys<'a, 'c> {
    snapshot: &'a mut Snapshot<'c>,
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
    /// Position up to which the source has been examined. `None` if no keys follow
    /// the buffered ones.
    examined: Option<Cursor>,
}

impl<'a, 'c> Keys<'a, 'c> {
    fn new(snapshot: &'a mut Snapshot<'c>, query: &'a LogQuery) -> Result<Self, QueryError> {
        // One key more than the page shows whether there is another page.
        let remaining = query.skipped_rows().saturating_add(u64::from(query.limit) + 1);
        let mut keys = Self { snapshot, query, remaining, unopened: Vec::new(), open: Vec::new() };
        if segments::divide(query) {
            keys.unopened = segments::of_query(keys.snapshot.connection(), query)?;
        } else {
            keys.open(None, query.start)?;
        }
        Ok(keys)
    }

    fn next(&mut self) -> Result<Option<Key>, QueryError> {
        self.snapshot.check()?;
        self.snapshot.renew()?;
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
            let Source { segment, examined, .. } = self.open.swap_remove(index);
            if let Some(examined) = examined
                && self.remaining > 0
            {
                self.open(segment, Start::After(examined))?;
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

    /// Opens the segment, or all entries, with the keys that follow `start`.
    fn open(&mut self, segment: Option<i64>, mut start: Start) -> Result<(), QueryError> {
        loop {
            let source = self.read(segment, start)?;
            if !source.buffered.is_empty() {
                self.open.push(source);
                return Ok(());
            }
            let Some(examined) = source.examined else { return Ok(()) };
            // The read ended early, for a checkpoint.
            start = Start::After(examined);
            self.snapshot.renew()?;
        }
    }

    /// Reads matching keys, beginning at `start`. Stops early if a checkpoint
    /// needs the snapshot back.
    fn read(&self, segment: Option<i64>, start: Start) -> Result<Source, QueryError> {
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(MAX_KEYS_PER_READ);
        let (sql, parameters) = select(self.query, start, segment);
        let mut statement = self.snapshot.connection().prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
        let mut buffered = VecDeque::with_capacity(limit);
        let mut examined = None;
        while buffered.len() < limit && !(examined.is_some() && self.snapshot.is_wanted_back()) {
            self.snapshot.check()?;
            let Some(row) = rows.next()? else {
                examined = None;
                break;
            };
            let key = row::read_key(row)?;
            examined = Some(Cursor { timestamp: key.timestamp, id: key.id });
            if matches(self.query, row)? {
                buffered.push_back(key);
            }
        }
        Ok(Source { segment, buffered, examined })
    }
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
