//! Which indexes there should be, and whether they are. Pure.

use std::fmt;

use bson::{Bson, Document, doc};

/// An index that a query of ours needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    collection: String,
    keys: &'static [(&'static str, i32)],
}

/// Of the logs: all by time, and one user's by time. A third would cost mongod
/// a third more for each log; whoever needs one creates it.
const LOGS: [&[(&str, i32)]; 2] =
    [&[("userId", 1), ("timestamp", -1), ("_id", -1)], &[("timestamp", -1), ("_id", -1)]];

const DEAD_LETTERS: [&[(&str, i32)]; 2] =
    [&[("failedAt", -1), ("_id", -1)], &[("code", 1), ("failedAt", -1), ("_id", -1)]];

/// The indexes of a collection.
pub(super) fn wanted(collection: &str, holds_dead_letters: bool) -> Vec<Wanted> {
    let keys = if holds_dead_letters { DEAD_LETTERS } else { LOGS };
    keys.into_iter().map(|keys| Wanted { collection: collection.to_owned(), keys }).collect()
}

impl Wanted {
    /// Whether one of these, as `listIndexes` describes them, serves as well:
    /// it may be named otherwise, run the other way, or go on with more keys.
    pub(super) fn is_among(&self, present: &[Document]) -> bool {
        present.iter().any(|index| {
            let holds_all = ["partialFilterExpression", "sparse", "hidden", "collation"]
                .iter()
                .all(|option| matches!(index.get(option), None | Some(Bson::Boolean(false))));
            let Ok(keys) = index.get_document("key") else { return false };
            holds_all && (self.is_prefix(keys, 1) || self.is_prefix(keys, -1))
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
        let mut present = keys.iter().map(|(name, value)| (name.as_str(), directed(value)));
        self.keys
            .iter()
            .all(|(name, wanted)| present.next() == Some((*name, Some(wanted * direction))))
    }

    fn keys(&self) -> Document {
        self.keys
            .iter()
            .map(|(name, direction)| ((*name).to_owned(), Bson::from(*direction)))
            .collect()
    }

    fn name(&self) -> String {
        let parts: Vec<_> = self.keys.iter().map(|(name, way)| format!("{name}_{way}")).collect();
        parts.join("_")
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.collection, self.keys())
    }
}

/// The commands that create these: one for each collection.
pub(super) fn commands(absent: &[Wanted]) -> Vec<Document> {
    let mut commands = Vec::new();
    for of_one in absent.chunk_by(|a, b| a.collection == b.collection) {
        let indexes: Vec<Bson> = of_one
            .iter()
            .map(|wanted| {
                // Whatever the collection's own: our queries compare so too.
                let collation = doc! { "locale": "simple" };
                let (key, name) = (wanted.keys(), wanted.name());
                Bson::from(doc! { "key": key, "name": name, "collation": collation })
            })
            .collect();
        let collection = of_one.first().map_or("", |wanted| &wanted.collection);
        commands.push(doc! { "createIndexes": collection, "indexes": indexes });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_as_well_is_not_created_again() {
        let users = &wanted("logs", false)[0];
        let keys = doc! { "userId": 1, "timestamp": -1, "_id": -1 };
        for serving in [
            doc! { "key": keys.clone(), "name": "any" },
            doc! { "key": { "userId": 1.0, "timestamp": -1_i64, "_id": -1, "action": 1 } },
            doc! { "key": { "userId": -1, "timestamp": 1, "_id": 1 }, "hidden": false },
        ] {
            assert!(users.is_among(&[doc! { "key": { "_id": 1 } }, serving]));
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
            assert!(!users.is_among(std::slice::from_ref(&not_serving)), "{not_serving}");
        }
    }

    #[test]
    fn each_collection_is_passed_over_once() {
        let mut absent = wanted("logs", false);
        absent.extend(wanted("dead-letters", true));
        let commands = commands(&absent);
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
