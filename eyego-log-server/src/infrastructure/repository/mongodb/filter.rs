//! A query becomes a filter of MongoDB. Pure. Only what core has parsed goes in
//! here: never a caller's operator.

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use eyego_log_core::query::{Cursor, Order, Start};
use eyego_log_core::{LogQuery, Timestamp};

use super::metadata_filter;

/// The filter of a query, its start included where that is a cursor.
pub(super) fn of_query(query: &LogQuery) -> Document {
    let mut conditions = vec![is_log()];
    if let Some(user_id) = &query.user_id {
        conditions.push(doc! { "userId": { "$eq": user_id } });
    }
    if let Some(action) = &query.action {
        conditions.push(doc! { "action": { "$eq": action } });
    }
    if let Some(from) = query.from {
        conditions.push(doc! { "timestamp": { "$gte": date(from) } });
    }
    if let Some(to) = query.to {
        conditions.push(doc! { "timestamp": { "$lt": date(to) } });
    }
    if let Start::After(cursor) = query.start {
        conditions.extend(after("timestamp", query.order, cursor));
    }
    conditions.extend(query.metadata.iter().map(metadata_filter::of));
    doc! { "$and": conditions }
}

/// The rows after this one.
pub(super) fn after(time: &str, order: Order, cursor: Cursor) -> [Document; 2] {
    let (at, id) = (date(cursor.timestamp), ObjectId::from_bytes(*cursor.id.as_bytes()));
    let (beyond, up_to) = match order {
        Order::Descending => ("$lt", "$lte"),
        Order::Ascending => ("$gt", "$gte"),
    };
    [
        // Says less than the other, and lets an index begin there.
        doc! { time: { up_to: at } },
        doc! { "$or": [
            { time: { beyond: at } },
            { time: at, "_id": { beyond: id } },
        ] },
    ]
}

pub(super) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_millis())
}

/// Keeps out what somebody else put into the collection. As an expression, so
/// that no index is chosen for it.
fn is_log() -> Document {
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
