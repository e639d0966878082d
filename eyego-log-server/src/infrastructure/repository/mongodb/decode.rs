//! Decodes stored documents into entries: those of this program, and those that
//! the legacy service wrote with Mongoose (`createdAt`, `updatedAt`, `__v`, no
//! `receivedAt`, sometimes no `metadata`).

use bson::RawBsonRef;
use bson::raw::RawDocument;
use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};

use super::json::{self, JsonError, JsonText};
use crate::domain::read::{MAX_EVENT_BYTES, PageItem as _};

/// Key of metadata that is not an object.
const WRAPPER_KEY: &str = "value";

/// Why a document is not returned as an event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecodable {
    #[error("it is not an event: {0}")]
    NotAnEvent(String),
    #[error("it has more than {MAX_EVENT_BYTES} bytes as JSON")]
    TooLarge,
}

/// Decodes a document.
///
/// # Errors
/// Returns an error if the document is not an event, or is larger than an event that
/// can be returned.
pub(super) fn entry(document: &RawDocument) -> Result<LogEntry, Undecodable> {
    let entry = entry_up_to(document, MAX_EVENT_BYTES)?;
    if entry.json_bytes() > MAX_EVENT_BYTES {
        return Err(Undecodable::TooLarge);
    }
    Ok(entry)
}

/// Decodes a document of any size, which is not returned to a caller.
///
/// # Errors
/// Returns an error if the document is not an event.
pub(super) fn any_entry(document: &RawDocument) -> Result<LogEntry, Undecodable> {
    entry_up_to(document, usize::MAX)
}

fn entry_up_to(document: &RawDocument, max_bytes: usize) -> Result<LogEntry, Undecodable> {
    let not_an_event = Undecodable::NotAnEvent;
    let missing = |reason: &str| Undecodable::NotAnEvent(reason.to_owned());
    let (mut id, mut user_id, mut action) = (None, None, None);
    let (mut timestamp, mut received_at) = (None, None);
    let mut metadata = Metadata::default();
    for element in document {
        let (key, value) =
            element.map_err(|error| not_an_event(format!("it is not BSON: {error}")))?;
        match (key.as_str(), value) {
            ("_id", RawBsonRef::ObjectId(bytes)) => id = Some(LogId::from_bytes(bytes.bytes())),
            ("userId", RawBsonRef::String(name)) => user_id = UserId::from_stored(name),
            ("action", RawBsonRef::String(name)) => action = Action::from_stored(name),
            ("timestamp", value) => timestamp = time(value),
            ("receivedAt", value) => received_at = time(value),
            ("metadata", value) => metadata = read_metadata(value, max_bytes)?,
            _ => {}
        }
    }
    let mut entry = LogEntry::new(
        id.ok_or_else(|| missing("its _id is not an ObjectId"))?,
        user_id.ok_or_else(|| missing("it has no userId that is a non-empty string"))?,
        action.ok_or_else(|| missing("it has no action that is a non-empty string"))?,
        timestamp
            .ok_or_else(|| missing("it has no timestamp that is a date in the years 0 to 9999"))?,
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

/// Decodes metadata. A value that is not an object, which the schema of the legacy
/// service allowed, becomes the only member of an object.
fn read_metadata(value: RawBsonRef<'_>, max_bytes: usize) -> Result<Metadata, Undecodable> {
    // JSON is about as long as BSON.
    let capacity = value.as_document().map_or(0, |document| document.as_bytes().len());
    let mut text = JsonText::new(max_bytes, capacity);
    let written = match value {
        RawBsonRef::Null | RawBsonRef::Undefined => return Ok(Metadata::default()),
        RawBsonRef::Document(document) => json::push_object(&mut text, document),
        other => {
            text.bytes.extend_from_slice(format!("{{\"{WRAPPER_KEY}\":").as_bytes());
            let written = json::push_value(&mut text, other);
            text.bytes.push(b'}');
            written
        }
    };
    let unreadable = |error: &dyn std::fmt::Display| {
        Undecodable::NotAnEvent(format!("its metadata is unreadable: {error}"))
    };
    written.map_err(|error| match error {
        JsonError::TooLarge => Undecodable::TooLarge,
        JsonError::Bson(error) => unreadable(&error),
    })?;
    let text = String::from_utf8(text.bytes).map_err(|error| unreadable(&error))?;
    Metadata::from_stored(text).ok_or_else(|| unreadable(&"it is not an object"))
}

#[cfg(test)]
mod tests {
    use bson::{Bson, DateTime, RawDocumentBuf, doc, oid::ObjectId};

    use super::*;

    fn read(document: &bson::Document) -> Result<LogEntry, String> {
        let document = RawDocumentBuf::try_from(document).unwrap();
        entry(&document).map_err(|error| error.to_string())
    }

    fn legacy_document(metadata: impl Into<Bson>) -> bson::Document {
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
    fn documents_of_the_legacy_service_are_decoded() {
        let entry =
            read(&legacy_document(doc! {"b": 1, "a": 1.0, "l": 1_i64, "": {"$oid": "x"}})).unwrap();
        assert_eq!(entry.metadata.as_json(), r#"{"b":1,"a":1.0,"l":1,"":{"$oid":"x"}}"#);
        assert_eq!(entry.timestamp.to_string(), "2026-01-14T23:58:05.442Z");
        assert_eq!(entry.received_at, None);
    }

    #[test]
    fn metadata_that_is_not_an_object_is_wrapped() {
        let metadata =
            |value: Bson| read(&legacy_document(value)).unwrap().metadata.as_json().to_owned();
        assert_eq!(metadata(Bson::Null), "{}");
        assert_eq!(metadata(Bson::from(vec![1, 2])), r#"{"value":[1,2]}"#);
        assert_eq!(metadata(Bson::from("text")), r#"{"value":"text"}"#);
        let mut without = legacy_document(Bson::Null);
        without.remove("metadata");
        assert_eq!(read(&without).unwrap().metadata.as_json(), "{}");
    }

    #[test]
    fn documents_that_are_not_events_have_a_reason() {
        let mut document = legacy_document(doc! {});
        document.insert("_id", 7);
        assert!(read(&document).unwrap_err().contains("_id"));
        for field in ["userId", "action", "timestamp"] {
            let mut document = legacy_document(doc! {});
            document.insert(field, 7);
            assert!(read(&document).unwrap_err().contains(field));
            document.remove(field);
            assert!(read(&document).unwrap_err().contains(field));
        }
        let mut document = legacy_document(doc! {});
        document.insert("timestamp", DateTime::MAX);
        assert!(read(&document).unwrap_err().contains("years"));
    }

    #[test]
    fn event_above_the_limit_of_a_response_is_not_returned() {
        let text = "x".repeat(MAX_EVENT_BYTES / 2);
        assert!(read(&legacy_document(doc! { "a": &text })).is_ok());
        let mut long_user = legacy_document(doc! { "a": &text });
        long_user.insert("userId", "\u{1}".repeat(MAX_EVENT_BYTES / 8));
        for too_large in [legacy_document(doc! { "a": &text, "b": &text }), long_user] {
            assert_eq!(read(&too_large).unwrap_err(), "it has more than 16842752 bytes as JSON");
            assert!(any_entry(&RawDocumentBuf::try_from(&too_large).unwrap()).is_ok());
        }
    }
}
