//! The stages of the pipelines by which MongoDB groups events, and their results. This module does
//! no I/O.
//!
//! They read one index and no document. If the collection may contain other documents than
//! events, types are conditions on indexed fields, because `$type` for each event would take as
//! long as the rest. Even these conditions take a third of the time, because MongoDB then checks
//! each key instead of the ends of one range.

use bson::oid::ObjectId;
use bson::raw::RawDocument;
use bson::{Bson, Document, RawBsonRef, doc};
use eyego_log_core::{LogQuery, Timestamp};

use crate::domain::stats::{GroupBy, StatsQuery};
use crate::infrastructure::repository::mongodb::{filter, indexes};

/// Maximum number of stretches of equally long buckets. Days have two more for each
/// year of daylight saving time.
const MAX_STRETCHES: usize = 64;

/// What the collection contains, as far as the types of the fields tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Events only.
    Events,
    /// Possibly other documents, too.
    Any,
}

/// Buckets of the same length.
struct Stretch {
    first: usize,
    start: Timestamp,
    millis: i64,
}

/// Returns the group that counts the events by bucket and value, or `None` if
/// MongoDB cannot group them as this program does.
pub(super) fn counts(query: &StatsQuery) -> Option<Document> {
    let mut key = vec![bucket(&query.starts)?];
    match value(query)? {
        "" => {}
        field => key.push(Bson::from(field)),
    }
    Some(doc! { "_id": key, "n": { "$sum": 1 } })
}

/// Returns the group that finds the users of each value, or `None` if the values
/// are the users.
pub(super) fn users(query: &StatsQuery) -> Option<Document> {
    match value(query)? {
        "" => Some(doc! { "_id": "$userId" }),
        "$userId" => None,
        field => Some(doc! { "_id": field, "users": { "$addToSet": "$userId" } }),
    }
}

/// Returns the field to group by, empty if there is no group.
fn value(query: &StatsQuery) -> Option<&'static str> {
    match &query.by {
        None => Some(""),
        Some(GroupBy::Action) => Some("$action"),
        Some(GroupBy::UserId) => Some("$userId"),
        // The text of a number and the ways to split a path are this program's own.
        Some(GroupBy::Metadata(_)) => None,
    }
}

/// Returns the condition for the events of a query. An array matches like each of
/// its elements.
pub(super) fn matching(query: &LogQuery, content: Content) -> Document {
    let mut conditions = filter::conditions(query);
    if content == Content::Any {
        conditions.extend([
            doc! { "userId": { "$gt": "" } },
            doc! { "action": { "$gt": "" } },
            doc! { "_id": { "$type": "objectId" } },
        ]);
    }
    doc! { "$and": conditions }
}

/// Returns filters for documents that are not events, each with the keys of the index in which
/// they are a few ranges.
pub(super) fn not_events() -> [(Document, Document); 3] {
    let no_id = doc! { "_id": { "$not": { "$gte": ObjectId::from_bytes([0; 12]) } } };
    [
        (doc! { "userId": { "$not": { "$gt": "" } } }, indexes::document(indexes::BY_USER)),
        (doc! { "action": { "$not": { "$gt": "" } } }, indexes::document(indexes::BY_ACTION)),
        (no_id, doc! { "_id": 1 }),
    ]
}

/// Returns the keys of the index that contains the events of a query.
pub(super) fn index(query: &LogQuery) -> Document {
    indexes::document(if query.user_id.is_some() {
        indexes::BY_USER
    } else if query.action.is_some() {
        indexes::BY_ACTION
    } else {
        indexes::BY_TIME
    })
}

/// Returns the expression for the number of the bucket that contains an event. It
/// can be greater than that of the last one.
fn bucket(starts: &[Timestamp]) -> Option<Bson> {
    let stretches = stretches(starts);
    let number = |stretch: &Stretch| {
        let since = doc! { "$subtract": ["$timestamp", filter::date(stretch.start)] };
        let number = doc! { "$floor": { "$divide": [since, stretch.millis] } };
        match stretch.first {
            0 => Bson::from(number),
            first => {
                Bson::from(doc! { "$add": [i64::try_from(first).unwrap_or(i64::MAX), number] })
            }
        }
    };
    match &*stretches {
        [] => Some(Bson::from(doc! { "$literal": 0 })),
        [only] => Some(number(only)),
        [first, rest @ ..] if rest.len() < MAX_STRETCHES => {
            let branch = |stretch: &Stretch| -> Bson {
                let is_in = doc! { "$gte": ["$timestamp", filter::date(stretch.start)] };
                Bson::from(doc! { "case": is_in, "then": number(stretch) })
            };
            let branches: Vec<Bson> = rest.iter().rev().map(branch).collect();
            Some(Bson::from(doc! { "$switch": { "branches": branches, "default": number(first) } }))
        }
        _ => None,
    }
}

/// Divides the buckets into as few stretches as possible. The last bucket, which has
/// no end, belongs to the last one: greater numbers are its events too.
fn stretches(starts: &[Timestamp]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (first, pair) in starts.windows(2).enumerate() {
        let millis = pair[1].as_millis() - pair[0].as_millis();
        if stretches.last().is_none_or(|stretch| stretch.millis != millis) {
            stretches.push(Stretch { first, start: pair[0], millis });
        }
    }
    stretches
}

/// Reads a result of [`counts`]: the bucket, the value and the number of events.
pub(super) fn read_counts(document: &RawDocument) -> Option<(usize, Option<&str>, u64)> {
    let mut key = document.get_array("_id").ok()?.into_iter();
    let bucket = whole(key.next()?.ok()?)?;
    let value = match key.next() {
        None => None,
        Some(value) => Some(text(value.ok()?)?),
    };
    let count = whole(document.get("n").ok()??)?;
    Some((usize::try_from(bucket).unwrap_or(0), value, u64::try_from(count).ok()?))
}

/// Reads a result of [`users`]: the value and its users.
pub(super) fn read_users(document: &RawDocument) -> (Option<&str>, Vec<&str>) {
    let key = document.get("_id").ok().flatten().and_then(text);
    match document.get_array("users") {
        Ok(users) => (key, users.into_iter().filter_map(|user| user.ok().and_then(text)).collect()),
        Err(_) => (None, key.into_iter().collect()),
    }
}

fn text(value: RawBsonRef<'_>) -> Option<&str> {
    match value {
        RawBsonRef::String(text) => Some(text),
        _ => None,
    }
}

fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(number) => Some(number.into()),
        RawBsonRef::Int64(number) => Some(number),
        #[expect(clippy::cast_possible_truncation, reason = "the result of $floor or $sum")]
        RawBsonRef::Double(number) => Some(number as i64),
        _ => None,
    }
}

/// Returns whether a plan uses an index in which a document has several keys.
pub(super) fn is_multikey(plan: &Document) -> bool {
    plan.iter().any(|(name, value)| {
        (name == "isMultiKey" && value.as_bool() == Some(true)) || is_multikey_value(value)
    })
}

fn is_multikey_value(value: &Bson) -> bool {
    match value {
        Bson::Document(document) => is_multikey(document),
        Bson::Array(values) => values.iter().any(is_multikey_value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(hours * 3_600_000).unwrap()
    }

    #[test]
    fn days_with_a_clock_change_are_three_stretches() {
        let starts = [0, 24, 48, 71, 95, 119].map(at);
        let found: Vec<_> = stretches(&starts).iter().map(|s| (s.first, s.millis)).collect();
        let hour = 3_600_000;
        assert_eq!(found, [(0, 24 * hour), (2, 23 * hour), (3, 24 * hour)]);
        assert!(stretches(&starts[..1]).is_empty());
        let irregular: Vec<_> = (0..100).map(|n| at(n * n)).collect();
        assert_eq!(bucket(&irregular), None);
    }

    #[test]
    fn a_multikey_index_is_found_anywhere_in_a_plan() {
        let index = |is_multikey: bool| doc! { "stage": "IXSCAN", "isMultiKey": is_multikey };
        for (plan, expected) in [
            (doc! { "winningPlan": { "inputStage": index(false) } }, false),
            (doc! { "winningPlan": { "inputStage": index(true) } }, true),
            (doc! { "shards": [{ "winningPlan": index(false) }, index(true)] }, true),
            (doc! { "winningPlan": { "stage": "EOF" } }, false),
        ] {
            assert_eq!(is_multikey(&plan), expected, "{plan}");
        }
    }
}
