//! A stored document becomes an entry again: ours, and those that the seed
//! wrote with Mongoose (`createdAt`, `updatedAt`, `__v`, no `receivedAt`,
//! perhaps no `metadata`).

use bson::RawBsonRef;
use bson::raw::RawDocument;
use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};

use super::json;

/// The key under which metadata that is no object reads back.
const WRAPPED: &str = "value";

/// The entry that is this document.
///
/// # Errors
/// Why it is not a log.
pub(super) fn entry(document: &RawDocument) -> Result<LogEntry, String> {
    let (mut id, mut user_id, mut action) = (None, None, None);
    let (mut timestamp, mut received_at) = (None, None);
    let mut metadata = Metadata::default();
    for element in document {
        let (key, value) = element.map_err(|error| format!("it is not BSON: {error}"))?;
        match (key.as_str(), value) {
            ("_id", RawBsonRef::ObjectId(bytes)) => id = Some(LogId::from_bytes(bytes.bytes())),
            ("userId", RawBsonRef::String(name)) => user_id = UserId::from_stored(name),
            ("action", RawBsonRef::String(name)) => action = Action::from_stored(name),
            ("timestamp", value) => timestamp = time(value),
            ("receivedAt", value) => received_at = time(value),
            ("metadata", value) => metadata = read_metadata(value)?,
            _ => {}
        }
    }
    let mut entry = LogEntry::new(
        id.ok_or("its _id is not an ObjectId")?,
        user_id.ok_or("it has no userId that is a non-empty string")?,
        action.ok_or("it has no action that is a non-empty string")?,
        timestamp.ok_or("it has no timestamp that is a date in the years 0 to 9999")?,
        metadata,
    );
    entry.received_at = received_at;
    Ok(entry)
}

pub(super) fn time(value: RawBsonRef<'_>) -> Option<Timestamp> {
    match value {
        RawBsonRef::DateTime(time) => Timestamp::from_millis(time.timestamp_millis()),
        _ => None,
    }
}

/// Nothing is lost of metadata that is no object, which only the seed's schema
/// allows: it becomes the one member of an object.
fn read_metadata(value: RawBsonRef<'_>) -> Result<Metadata, String> {
    let mut text = Vec::new();
    let written = match value {
        RawBsonRef::Null | RawBsonRef::Undefined => return Ok(Metadata::default()),
        RawBsonRef::Document(document) => json::push_object(&mut text, document),
        other => {
            text.extend_from_slice(format!("{{\"{WRAPPED}\":").as_bytes());
            let written = json::push_value(&mut text, other);
            text.push(b'}');
            written
        }
    };
    let not_readable = |error: &dyn std::fmt::Display| format!("its metadata is broken: {error}");
    written.map_err(|error| not_readable(&error))?;
    let text = String::from_utf8(text).map_err(|error| not_readable(&error))?;
    Metadata::from_stored(text).map_err(|error| not_readable(&error))
}

#[cfg(test)]
mod tests {
    use bson::{Bson, DateTime, RawDocumentBuf, doc, oid::ObjectId};

    use super::*;

    fn read(document: &bson::Document) -> Result<LogEntry, String> {
        entry(&RawDocumentBuf::try_from(document).unwrap())
    }

    fn seeds(metadata: impl Into<Bson>) -> bson::Document {
        doc! {
            "_id": ObjectId::from_bytes([1; 12]),
            "userId": "eyego",
            "action": "ADD_TO_CART",
            "metadata": metadata,
            "timestamp": DateTime::from_millis(1_768_435_085_442),
            "createdAt": DateTime::from_millis(1),
            "updatedAt": DateTime::from_millis(2),
            "__v": 0,
        }
    }

    #[test]
    fn a_document_of_the_seed_is_an_entry() {
        let entry = read(&seeds(doc! {"b": 1, "a": 1.0, "l": 1_i64, "": {"$oid": "x"}})).unwrap();
        assert_eq!(entry.metadata.as_json(), r#"{"b":1,"a":1.0,"l":1,"":{"$oid":"x"}}"#);
        assert_eq!(entry.timestamp.to_string(), "2026-01-14T23:58:05.442Z");
        assert_eq!(entry.received_at, None);
    }

    #[test]
    fn metadata_that_is_no_object_fails_nothing() {
        let metadata = |value: Bson| read(&seeds(value)).unwrap().metadata.as_json().to_owned();
        assert_eq!(metadata(Bson::Null), "{}");
        assert_eq!(metadata(Bson::from(vec![1, 2])), r#"{"value":[1,2]}"#);
        assert_eq!(metadata(Bson::from("text")), r#"{"value":"text"}"#);
        let mut without = seeds(Bson::Null);
        without.remove("metadata");
        assert_eq!(read(&without).unwrap().metadata.as_json(), "{}");
    }

    #[test]
    fn what_is_no_log_says_why() {
        let mut document = seeds(doc! {});
        document.insert("_id", 7);
        assert!(read(&document).unwrap_err().contains("_id"));
        for field in ["userId", "action", "timestamp"] {
            let mut document = seeds(doc! {});
            document.insert(field, 7);
            assert!(read(&document).unwrap_err().contains(field));
            document.remove(field);
            assert!(read(&document).unwrap_err().contains(field));
        }
        let mut document = seeds(doc! {});
        document.insert("timestamp", DateTime::MAX);
        assert!(read(&document).unwrap_err().contains("years"));
    }
}
