//! Converts queries into MongoDB filters. This module does no I/O. Values are compared with `$eq` and
//! similar operators, so a caller's text is never interpreted as an operator.

use bson::raw::RawDocument;
use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use eyego_log_core::query::{Cursor, Order, Start};
use eyego_log_core::{LogId, LogQuery, Timestamp};
use mongodb::options::Collation;

use super::{decode, metadata_filter};

/// Returns the filter of a query, including its cursor.
pub(super) fn of_query(query: &LogQuery) -> Document {
    let mut conditions = conditions(query);
    conditions.push(is_event());
    doc! { "$and": conditions }
}

/// Returns the conditions of a query, among them one for the times that an event can have.
/// Documents that are not events can fulfil them.
pub(super) fn conditions(query: &LogQuery) -> Vec<Document> {
    let mut conditions = Vec::new();
    if let Some(user_id) = &query.user_id {
        conditions.push(doc! { "userId": { "$eq": user_id } });
    }
    if let Some(action) = &query.action {
        conditions.push(doc! { "action": { "$eq": action } });
    }
    conditions.extend(in_time("timestamp", query.from, query.to));
    conditions.extend(query.metadata.iter().map(metadata_filter::of));
    if let Start::After(cursor) = query.start {
        conditions.extend(after("timestamp", query.order, cursor));
    }
    conditions
}

/// Returns the conditions for a range of times, without `from` and `to` all that a
/// [`Timestamp`] can have. `time` is the name of the field.
pub(super) fn in_time(time: &str, from: Option<Timestamp>, to: Option<Timestamp>) -> [Document; 2] {
    let before = match to {
        Some(to) => doc! { "$lt": date(to) },
        None => doc! { "$lte": date(Timestamp::MAX) },
    };
    [doc! { time: { "$gte": date(from.unwrap_or(Timestamp::MIN)) } }, doc! { time: before }]
}

/// Returns the position of a document in the order of the field `time`.
pub(super) fn position(document: &RawDocument, time: &str) -> Option<Cursor> {
    let id = document.get_object_id("_id").ok()?;
    let timestamp = decode::time(document.get(time).ok()??)?;
    Some(Cursor { timestamp, id: LogId::from_bytes(id.bytes()) })
}

/// Returns the conditions for the rows after the cursor. `time` is the name of
/// the timestamp field.
pub(super) fn after(time: &str, order: Order, cursor: Cursor) -> [Document; 2] {
    let (at, id) = (date(cursor.timestamp), ObjectId::from_bytes(*cursor.id.as_bytes()));
    let (after, from) = match order {
        Order::Descending => ("$lt", "$lte"),
        Order::Ascending => ("$gt", "$gte"),
    };
    [
        // The other condition implies this one, but an index scan can start with it.
        doc! { time: { from: at } },
        doc! { "$or": [
            { time: { after: at } },
            { time: at, "_id": { after: id } },
        ] },
    ]
}

pub(super) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_millis())
}

/// Returns the collation that compares strings by their bytes, whatever the
/// collection's default is.
pub(super) fn by_bytes() -> Collation {
    Collation::builder().locale("simple").build()
}

/// Returns the condition that excludes documents which are not events. It is an
/// expression, so that the planner does not choose an index for it.
pub(super) fn is_event() -> Document {
    let has_type = |field: &str, name: &str| -> Bson {
        Bson::from(doc! { "$eq": [{ "$type": field }, name] })
    };
    doc! { "$expr": { "$and": [
        has_type("$_id", "objectId"),
        has_type("$timestamp", "date"),
        has_type("$userId", "string"),
        has_type("$action", "string"),
        { "$ne": ["$userId", ""] },
        { "$ne": ["$action", ""] },
    ] } }
}
