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
/// the schema says the same.
pub(super) const BITS: u32 = 16;

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
    let (from, to) = (query.from.map(Timestamp::as_millis), query.to.map(Timestamp::as_millis));
    let (mut first, mut last) = (from.unwrap_or(i64::MIN), to.map_or(i64::MAX, |to| to - 1));
    if let Start::After(cursor) = query.start {
        match query.order {
            Order::Descending => last = last.min(cursor.timestamp.as_millis()),
            Order::Ascending => first = first.max(cursor.timestamp.as_millis()),
        }
    }
    let order = match query.order {
        Order::Descending => "latest ASC",
        Order::Ascending => "earliest DESC",
    };
    let sql = format!(
        "SELECT number, earliest, latest FROM segments \
         WHERE latest >= ?1 AND earliest <= ?2 ORDER BY {order}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let segments = statement.query_map((first, last), |row| {
        Ok(Segment {
            number: row.get(0)?,
            earliest: Timestamp::from_millis_clamped(row.get(1)?),
            latest: Timestamp::from_millis_clamped(row.get(2)?),
        })
    })?;
    segments.collect()
}
