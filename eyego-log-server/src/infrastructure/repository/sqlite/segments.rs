//! The index by user comes in segments, one for each 65,536 logs in the order
//! in which they were stored.
//!
//! A tree over all logs has each user's at another place: with many users each
//! log that is stored writes a page of its own, twice. A segment's tree is
//! small, so the logs of a transaction share its pages, and once it is full it
//! is never written again (measured on a store of 600,000 logs of 10,000 users:
//! 0.8 kB written for a log instead of 4.6, and all of the server took a third
//! more requests). A query by user asks one segment after the other, those
//! whose times are next first: mostly that is the newest alone.

use eyego_log_core::query::{Order, Start};
use eyego_log_core::{LogQuery, Timestamp};
use rusqlite::Connection;

/// A segment's number is the log's `seq` without so many bits. The index in
/// the schema says the same, and so does what `select` asks for.
const BITS: u32 = 16;

/// Which times the logs of a segment have. Never too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: i64,
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
}

/// The segments that a transaction has stored logs in.
#[derive(Debug, Default)]
pub(super) struct Touched(Vec<Segment>);

impl Touched {
    /// A log was stored: the last one so far.
    pub(super) fn add(&mut self, seq: i64, timestamp: Timestamp) {
        let number = seq >> BITS;
        match self.0.last_mut() {
            Some(segment) if segment.number == number => {
                segment.earliest = segment.earliest.min(timestamp);
                segment.latest = segment.latest.max(timestamp);
            }
            _ => self.0.push(Segment { number, earliest: timestamp, latest: timestamp }),
        }
    }

    /// Widens what is known of these segments.
    pub(super) fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut widen = connection.prepare_cached(
            "INSERT INTO segments (number, earliest, latest) VALUES (?1, ?2, ?3) \
             ON CONFLICT (number) DO UPDATE SET \
                 earliest = min(earliest, excluded.earliest), \
                 latest = max(latest, excluded.latest)",
        )?;
        for Segment { number, earliest, latest } in &self.0 {
            widen.execute((number, earliest.as_millis(), latest.as_millis()))?;
        }
        Ok(())
    }
}

/// The segments that may hold what the query asks for; the last is the one to
/// look into first.
pub(super) fn of_query(
    connection: &Connection,
    query: &LogQuery,
) -> rusqlite::Result<Vec<Segment>> {
    let (mut from, mut to) = (query.from, query.to);
    if let Start::After(cursor) = query.start {
        match query.order {
            Order::Ascending => from = from.max(Some(cursor.timestamp)),
            // Up to the cursor's own millisecond, which `to` would exclude.
            Order::Descending if to.is_none_or(|to| to > cursor.timestamp) => {
                to = Timestamp::from_millis(cursor.timestamp.as_millis() + 1);
            }
            Order::Descending => {}
        }
    }
    let order = match query.order {
        Order::Descending => "latest ASC",
        Order::Ascending => "earliest DESC",
    };
    let sql = format!(
        "SELECT number, earliest, latest FROM segments \
         WHERE latest >= coalesce(?1, latest) AND earliest < coalesce(?2, earliest + 1) \
         ORDER BY {order}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let segments = statement.query_map((millis(from), millis(to)), |row| {
        Ok(Segment {
            number: row.get(0)?,
            earliest: Timestamp::from_millis_clamped(row.get(1)?),
            latest: Timestamp::from_millis_clamped(row.get(2)?),
        })
    })?;
    segments.collect()
}
