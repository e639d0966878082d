//! The indexes that our queries need, and whether existing indexes serve them.
//! This module does no I/O.

use std::fmt;

use bson::{Bson, Document, doc};

/// The names of the fields of an index, and their directions.
pub(super) type Keys = &'static [(&'static str, i32)];

/// An index that our queries need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RequiredIndex {
    collection: String,
    keys: Keys,
}

/// The user index. Like [`BY_TIME`] and [`BY_ACTION`], it contains all that
/// statistics count, so that no document is read for them (ADR 0041).
pub(super) const BY_USER: Keys = &[("userId", 1), ("timestamp", -1), ("_id", -1), ("action", 1)];
pub(super) const BY_TIME: Keys = &[("timestamp", -1), ("_id", -1), ("action", 1), ("userId", 1)];
pub(super) const BY_ACTION: Keys = &[("action", 1), ("timestamp", -1), ("_id", -1), ("userId", 1)];

/// Indexes of log entries. Operators can add more; each costs `mongod` time per
/// insert (`docs/adr/0007`).
const LOGS: &[Keys] = &[BY_USER, BY_TIME, BY_ACTION];

/// Indexes of earlier versions of this program, which those have replaced.
const REPLACED: &[Keys] =
    &[&[("userId", 1), ("timestamp", -1), ("_id", -1)], &[("timestamp", -1), ("_id", -1)]];

/// Indexes of dead letters. Erasures use the last one.
const DEAD_LETTERS: &[Keys] = &[
    &[("failedAt", -1), ("_id", -1)],
    &[("code", 1), ("failedAt", -1), ("_id", -1)],
    &[("userId", 1), ("_id", 1)],
];

/// Returns the indexes that a collection needs.
pub(super) fn required(collection: &str, holds_dead_letters: bool) -> Vec<RequiredIndex> {
    let keys = if holds_dead_letters { DEAD_LETTERS } else { LOGS };
    keys.iter().map(|keys| RequiredIndex { collection: collection.to_owned(), keys }).collect()
}

/// Returns the names of those existing indexes of log entries, in the format of
/// `listIndexes`, that an earlier version of this program created and this one no
/// longer needs.
pub(super) fn replaced(existing: &[Document]) -> Vec<String> {
    let names = existing.iter().filter_map(|index| {
        let (name, key) = (index.get_str("name").ok()?, index.get_document("key").ok()?);
        let is_ours = |keys: &&Keys| name == self::name(keys) && *key == document(keys);
        REPLACED.iter().any(|keys| is_ours(&keys)).then(|| name.to_owned())
    });
    names.collect()
}

/// Returns the keys as `createIndexes` and `hint` expect them.
pub(super) fn document(keys: Keys) -> Document {
    keys.iter().map(|(name, direction)| ((*name).to_owned(), Bson::from(*direction))).collect()
}

fn name(keys: Keys) -> String {
    let parts: Vec<_> = keys.iter().map(|(name, order)| format!("{name}_{order}")).collect();
    parts.join("_")
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
}

impl fmt::Display for RequiredIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.collection, document(self.keys))
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
                let (key, name) = (document(index.keys), name(index.keys));
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
        let keys = doc! { "userId": 1, "timestamp": -1, "_id": -1, "action": 1 };
        for serving in [
            doc! { "key": keys.clone(), "name": "any" },
            doc! { "key": { "userId": 1.0, "timestamp": -1_i64, "_id": -1, "action": 1, "n": 1 } },
            doc! { "key": { "userId": -1, "timestamp": 1, "_id": 1, "action": -1 },
            "hidden": false },
        ] {
            assert!(users.is_served_by(&[doc! { "key": { "_id": 1 } }, serving]));
        }
        for not_serving in [
            doc! { "key": { "userId": 1, "timestamp": -1, "_id": -1 } },
            doc! { "key": { "userId": 1, "timestamp": -1, "_id": 1, "action": 1 } },
            doc! { "key": { "timestamp": -1, "_id": -1, "userId": 1, "action": 1 } },
            doc! { "key": { "userId": "hashed", "timestamp": -1, "_id": -1, "action": 1 } },
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
        let names: Vec<_> = commands[0].get_array("indexes").unwrap().iter().collect();
        assert_eq!(names.len(), 3);
        assert_eq!(
            names[0].as_document().unwrap(),
            &doc! { "key": { "userId": 1, "timestamp": -1, "_id": -1, "action": 1 },
            "name": "userId_1_timestamp_-1__id_-1_action_1", "collation": { "locale": "simple" } }
        );
    }

    #[test]
    fn only_our_own_former_indexes_are_replaced() {
        let index = |key: Document, name: &str| doc! { "v": 2, "key": key, "name": name };
        let former = doc! { "timestamp": -1, "_id": -1 };
        let existing = [
            index(doc! { "_id": 1 }, "_id_"),
            index(former.clone(), "timestamp_-1__id_-1"),
            index(former, "of_an_operator"),
            index(document(BY_USER), &name(BY_USER)),
            index(doc! { "x": 1 }, "userId_1_timestamp_-1__id_-1"),
        ];
        assert_eq!(replaced(&existing), ["timestamp_-1__id_-1"]);
    }
}
