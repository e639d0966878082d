//! Segments of the indexes by user and by action: one per 65,536 entries, in the
//! order in which they were stored.
//!
//! In an index over all entries, each user has a different place, so with many
//! users each stored entry writes a page of its own. A segment is small: the
//! entries of a transaction share its pages, and a full segment is never written
//! again. A query by user reads one segment after another, starting with the one
//! whose times come first in the query's order. Usually that is only the newest.
//! See `docs/adr/0009`.

use eyego_log_core::query::{Order, Start};
use eyego_log_core::{LogQuery, Timestamp};
use rusqlite::Connection;

/// An entry is in segment `seq >> SEGMENT_BITS`. The indexes in the schema have the
/// same expression.
pub(super) const SEGMENT_BITS: u32 = 16;

/// A segment and the range of its entries' timestamps. The range can be too wide
/// but never too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: i64,
    pub(super) earliest: Timestamp,
    pub(super) latest: Timestamp,
}

/// The segments in which a transaction has stored entries.
#[derive(Debug, Default)]
pub(super) struct TouchedSegments(Vec<Segment>);

impl TouchedSegments {
    /// Adds an entry. Its `seq` must be higher than that of all entries before.
    pub(super) fn add(&mut self, seq: i64, timestamp: Timestamp) {
        let number = seq >> SEGMENT_BITS;
        match self.0.last_mut() {
            Some(segment) if segment.number == number => {
                segment.earliest = segment.earliest.min(timestamp);
                segment.latest = segment.latest.max(timestamp);
            }
            _ => self.0.push(Segment { number, earliest: timestamp, latest: timestamp }),
        }
    }

    /// Saves the time ranges of the segments.
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

/// Returns `true` if the entries of the query are in an index that is divided into
/// segments.
pub(super) fn divide(query: &LogQuery) -> bool {
    query.user_id.is_some() || query.action.is_some()
}

/// Returns the segments that can contain entries of the query. The last one
/// comes first in the query's order.
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
