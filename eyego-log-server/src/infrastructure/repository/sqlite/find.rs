//! How a query becomes SQL, and how conditions on metadata are judged.

use std::collections::VecDeque;

use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use eyego_log_core::{LogId, LogQuery, Timestamp};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::logs::get_by_seq;
use super::segments::{self, BITS, Segment};
use crate::domain::repository::Page;

/// So many keys are read at a time, at most.
const KEYS: usize = 256;

/// The logs that match.
///
/// Keys come in order out of an index, so that a page costs what it reads, and
/// only what is answered is read whole.
pub(super) fn find(connection: &Connection, query: &LogQuery) -> rusqlite::Result<Page> {
    // One view of the file for all statements.
    let view = connection.unchecked_transaction()?;
    let mut keys = Keys::of(&view, query)?;
    for _ in 0..query.skipped_rows() {
        if keys.next()?.is_none() {
            break;
        }
    }
    let mut entries = Vec::new();
    while let Some(key) = keys.next()? {
        entries.push(get_by_seq(&view, key.seq)?);
    }
    Ok(Page::from_one_more(entries, query.limit))
}

/// A log's place in the order of all logs, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    timestamp: Timestamp,
    id: LogId,
    seq: i64,
}

/// The keys of the logs that match, in the query's order, up to one past its
/// page: those of all users out of one index, those of one user merged out of
/// the segments' indexes.
struct Keys<'a> {
    connection: &'a Connection,
    query: &'a LogQuery,
    /// How many are still to be given, at most.
    needed: u64,
    /// Not looked into yet; the next is the last.
    ahead: Vec<Segment>,
    /// With a key at hand, each.
    open: Vec<Source>,
}

/// Keys in the query's order.
struct Source {
    /// `None`: of all logs.
    segment: Option<i64>,
    at_hand: VecDeque<Key>,
    /// Those at hand are the last.
    is_read: bool,
}

impl<'a> Keys<'a> {
    fn of(connection: &'a Connection, query: &'a LogQuery) -> rusqlite::Result<Self> {
        // One more than the page holds says that there are more.
        let needed = query.skipped_rows().saturating_add(u64::from(query.limit) + 1);
        let mut keys = Self { connection, query, needed, ahead: Vec::new(), open: Vec::new() };
        if query.user_id.is_some() {
            keys.ahead = segments::of_query(connection, query)?;
        } else {
            keys.open(None, query.start)?;
        }
        Ok(keys)
    }

    fn next(&mut self) -> rusqlite::Result<Option<Key>> {
        if self.needed == 0 {
            return Ok(None);
        }
        let (place, key) = loop {
            let first = self.first();
            let may_precede = |segment: &mut Segment| {
                first.is_none_or(|(_, key)| match self.query.order {
                    Order::Descending => segment.latest >= key.timestamp,
                    Order::Ascending => segment.earliest <= key.timestamp,
                })
            };
            if let Some(segment) = self.ahead.pop_if(may_precede) {
                self.open(Some(segment.number), self.query.start)?;
            } else if let Some(first) = first {
                break first;
            } else {
                return Ok(None);
            }
        };
        self.needed -= 1;
        let source = &mut self.open[place];
        source.at_hand.pop_front();
        if source.at_hand.is_empty() {
            let Source { segment, is_read, .. } = self.open.swap_remove(place);
            if !is_read && self.needed > 0 {
                let after = Cursor { timestamp: key.timestamp, id: key.id };
                self.open(segment, Start::After(after))?;
            }
        }
        Ok(Some(key))
    }

    /// The first of the keys at hand, and whose it is.
    fn first(&self) -> Option<(usize, Key)> {
        let firsts = self.open.iter().enumerate();
        let firsts = firsts.filter_map(|(place, source)| Some((place, *source.at_hand.front()?)));
        match self.query.order {
            Order::Descending => firsts.max_by_key(|(_, key)| *key),
            Order::Ascending => firsts.min_by_key(|(_, key)| *key),
        }
    }

    /// Reads keys of the segment, or of all logs, from `start` on.
    fn open(&mut self, segment: Option<i64>, start: Start) -> rusqlite::Result<()> {
        let limit = usize::try_from(self.needed).unwrap_or(usize::MAX).min(KEYS);
        let filters = &self.query.metadata;
        let (sql, parameters) = select(self.query, start, segment);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
        let mut at_hand = VecDeque::with_capacity(limit);
        let mut is_read = false;
        while at_hand.len() < limit {
            let Some(row) = rows.next()? else {
                is_read = true;
                break;
            };
            if !filters.is_empty() && !matches_all(filters, row.get_ref(METADATA)?.as_str()?) {
                continue;
            }
            at_hand.push_back(Key {
                timestamp: Timestamp::from_millis_clamped(row.get(0)?),
                id: LogId::from_bytes(row.get(1)?),
                seq: row.get(2)?,
            });
        }
        if !at_hand.is_empty() {
            self.open.push(Source { segment, at_hand, is_read });
        }
        Ok(())
    }
}

fn matches_all(filters: &[MetadataFilter], metadata: &str) -> bool {
    // It was checked to be an object when it was stored.
    let metadata: serde_json::Map<_, _> = serde_json::from_str(metadata).unwrap_or_default();
    filters.iter().all(|filter| filter.matches(&metadata))
}

/// The column of metadata in the statement of [`select`], if there are
/// conditions on it.
const METADATA: usize = 3;

/// The statement for keys from `start` on, and its parameters.
pub(super) fn select(query: &LogQuery, start: Start, segment: Option<i64>) -> (String, Vec<Value>) {
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
    if let Some(segment) = segment {
        add(&format!("seq >> {BITS} = ?"), vec![Value::from(segment)]);
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
        let place = vec![
            Value::from(cursor.timestamp.as_millis()),
            Value::from(cursor.id.as_bytes().to_vec()),
        ];
        add(&format!("(timestamp, id) {past} (?, ?)"), place);
    }
    // The planner has no figures of this file and might sort instead.
    let index = if segment.is_some() { "logs_by_user" } else { "logs_by_time" };
    let condition =
        if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
    // Without it the index alone has all that is asked for.
    let metadata = if query.metadata.is_empty() { "" } else { ", metadata" };
    let sql = format!(
        "SELECT timestamp, id, seq{metadata} FROM logs INDEXED BY {index} WHERE {condition} \
         ORDER BY timestamp {direction}, id {direction}"
    );
    (sql, parameters)
}
