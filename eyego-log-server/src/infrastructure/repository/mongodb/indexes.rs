//! The indexes that our queries need, and whether existing indexes serve them.
//! Pure.

use std::fmt;

use bson::{Bson, Document, doc};

/// An index that our queries need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RequiredIndex {
    collection: String,
    keys: &'static [(&'static str, i32)],
}

/// Indexes of log entries: by user and time, and by time. Operators can add more;
/// each costs `mongod` time per insert (`docs/adr/0007`).
const LOGS: [&[(&str, i32)]; 2] =
    [&[("userId", 1), ("timestamp", -1), ("_id", -1)], &[("timestamp", -1), ("_id", -1)]];

const DEAD_LETTERS: [&[(&str, i32)]; 2] =
    [&[("failedAt", -1), ("_id", -1)], &[("code", 1), ("failedAt", -1), ("_id", -1)]];

/// Returns the indexes that a collection needs.
pub(super) fn required(collection: &str, holds_dead_letters: bool) -> Vec<RequiredIndex> {
    let keys = if holds_dead_letters { DEAD_LETTERS } else { LOGS };
    keys.into_iter().map(|keys| RequiredIndex { collection: collection.to_owned(), keys }).collect()
}

impl RequiredIndex {
    /// Returns `true` if one of the existing indexes, in the format of
    /// `listIndexes`, can be used instead. It can have another name, the opposite
    /// direction, or more keys at its end.
    pub(super) fn is_served_by(&self, existing: &[Document]) -> bool {
        existing.iter().any(|index| {
            let is_complete = ["partialFilterExpression", "sparse", "hidden", "collation"]
                .iter()
                .all(|option| matches!(index.get(option), None | Some(Bson::Boolean(false))));
            let Ok(keys) = index.get_document("key") else { return false };
            is_complete && (self.is_prefix(keys, 1) || self.is_prefix(keys, -1))
        })
    }

    fn is_prefix(&self, keys: &Document, direction: i32) -> bool {
        let directed = |value: &Bson| match value {
            Bson::Int32(n) => Some(*n),
            Bson::Int64(n) => i32::try_from(*n).ok(),
            Bson::Double(1.0) => Some(1),
            Bson::Double(-1.0) => Some(-1),
            _ => None,
        };
        let mut existing = keys.iter().map(|(name, value)| (name.as_str(), directed(value)));
        self.keys
            .iter()
            .all(|(name, order)| existing.next() == Some((*name, Some(order * direction))))
    }

    fn keys(&self) -> Document {
        self.keys
            .iter()
            .map(|(name, direction)| ((*name).to_owned(), Bson::from(*direction)))
            .collect()
    }

    fn name(&self) -> String {
        let parts: Vec<_> =
            self.keys.iter().map(|(name, order)| format!("{name}_{order}")).collect();
        parts.join("_")
    }
}

impl fmt::Display for RequiredIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.collection, self.keys())
    }
}

/// Returns the commands that create these indexes, one per collection.
pub(super) fn commands(missing: &[RequiredIndex]) -> Vec<Document> {
    let mut commands = Vec::new();
    for of_collection in missing.chunk_by(|a, b| a.collection == b.collection) {
        let indexes: Vec<Bson> = of_collection
            .iter()
            .map(|index| {
                // Our queries use it too, whatever the collection's default is.
                let collation = doc! { "locale": "simple" };
                let (key, name) = (index.keys(), index.name());
                Bson::from(doc! { "key": key, "name": name, "collation": collation })
            })
            .collect();
        let collection = of_collection.first().map_or("", |index| &index.collection);
        commands.push(doc! { "createIndexes": collection, "indexes": indexes });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_index_that_serves_is_not_created_again() {
        let users = &required("logs", false)[0];
        let keys = doc! { "userId": 1, "timestamp": -1, "_id": -1 };
        for serving in [
            doc! { "key": keys.clone(), "name": "any" },
            doc! { "key": { "userId": 1.0, "timestamp": -1_i64, "_id": -1, "action": 1 } },
            doc! { "key": { "userId": -1, "timestamp": 1, "_id": 1 }, "hidden": false },
        ] {
            assert!(users.is_served_by(&[doc! { "key": { "_id": 1 } }, serving]));
        }
        for not_serving in [
            doc! { "key": { "userId": 1, "timestamp": -1 } },
            doc! { "key": { "userId": 1, "timestamp": -1, "_id": 1 } },
            doc! { "key": { "timestamp": -1, "_id": -1, "userId": 1 } },
            doc! { "key": { "userId": "hashed", "timestamp": -1, "_id": -1 } },
            doc! { "key": keys.clone(), "partialFilterExpression": { "action": "A" } },
            doc! { "key": keys.clone(), "hidden": true },
            doc! { "key": keys, "collation": { "locale": "de" } },
        ] {
            assert!(!users.is_served_by(std::slice::from_ref(&not_serving)), "{not_serving}");
        }
    }

    #[test]
    fn indexes_of_a_collection_are_created_by_one_command() {
        let mut missing = required("logs", false);
        missing.extend(required("dead-letters", true));
        let commands = commands(&missing);
        assert_eq!(commands.len(), 2);
        assert_eq!(
            commands[0],
            doc! { "createIndexes": "logs", "indexes": [
                { "key": { "userId": 1, "timestamp": -1, "_id": -1 },
                  "name": "userId_1_timestamp_-1__id_-1", "collation": { "locale": "simple" } },
                { "key": { "timestamp": -1, "_id": -1 },
                  "name": "timestamp_-1__id_-1", "collation": { "locale": "simple" } },
            ] }
        );
    }
}
