//! The codec of the queue record: one JSON object, with the same bytes in Kafka
//! and in the embedded queue.
//!
//! `{"id","userId","action","timestamp","metadata","receivedAt"}`. Records of the
//! legacy service have `"id": null` and no `receivedAt`; both forms are decoded.
//! Decoding does not apply the limits of the HTTP API: only a record that no
//! store could hold is an error, and it becomes a dead letter.

mod origin;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::origin::{Origin, origin};
use crate::field::truncated;
use crate::json::Text;
use crate::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};

/// Maximum number of characters of the parser's error in a [`DecodeError`].
const MAX_REASON_CHARS: usize = 256;

/// Encodes `entry` and appends it to `out`.
///
/// ```
/// use eyego_log_core::{IngestRequest, LogIdGenerator, Timestamp, record};
///
/// let now = Timestamp::from_millis(1_768_435_085_442).unwrap();
/// let request = IngestRequest::parse(br#"{"userId": "u", "action": "A"}"#, now).unwrap();
/// let entry = request.into_entry(LogIdGenerator::new().generate(now), now);
///
/// let mut bytes = Vec::new();
/// record::encode(&entry, &mut bytes);
/// let decoded = record::decode(&bytes).unwrap();
/// assert_eq!(decoded.id, Some(entry.id));
/// assert_eq!(decoded.received_at, Some(now));
/// ```
pub fn encode(entry: &LogEntry, out: &mut Vec<u8>) {
    entry.append_open_json(out);
    if let Some(received_at) = entry.received_at {
        out.extend_from_slice(b",\"receivedAt\":\"");
        out.extend_from_slice(&received_at.to_text());
        out.push(b'"');
    }
    out.push(b'}');
}

/// A decoded record: a [`LogEntry`] without the fields that the legacy service
/// left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Unique event id. `None` in records of the legacy service, whose id is
    /// derived from their position in the queue.
    pub id: Option<LogId>,
    /// The user who did it.
    pub user_id: UserId,
    /// The action the user took.
    pub action: Action,
    /// Time of the event. If `None`, the time at which the record was queued
    /// counts.
    pub timestamp: Option<Timestamp>,
    /// Arbitrary metadata, as a JSON object.
    pub metadata: Metadata,
    /// When the server received the event. `None` in records of the legacy
    /// service.
    pub received_at: Option<Timestamp>,
}

/// The reason a record cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not a JSON object with the fields of a record.
    #[error("the record is not a JSON object with the fields of an event: {0}")]
    NotARecord(String),
    /// The fields are present, but no store could hold the value of one.
    #[error("{0}")]
    Unstorable(String),
}

impl DecodeError {
    /// Returns the `code` of the dead letter that the record becomes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARecord(_) => "not_a_record",
            Self::Unstorable(_) => "unstorable",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    action: Text<'a>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    received_at: Option<Text<'a>>,
}

/// Decodes a record.
///
/// # Errors
/// Returns an error if the record is not a JSON object with the required fields,
/// or if no store could hold it.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| DecodeError::NotARecord(format!("not UTF-8: {error}")))?;
    let body: Body<'_> =
        // The error quotes the record if the record is a string.
        serde_json::from_str(text)
            .map_err(|error| DecodeError::NotARecord(truncated(error, MAX_REASON_CHARS)))?;
    let unstorable =
        |field: &str, reason: &str| DecodeError::Unstorable(format!("{field} {reason}"));

    let id = match body.id {
        Some(id) => {
            let id = id.0.parse::<LogId>();
            Some(id.map_err(|error| unstorable("id", &error.to_string()))?)
        }
        None => None,
    };
    let timestamp = match body.timestamp {
        Some(timestamp) => {
            let timestamp = timestamp.0.parse::<Timestamp>();
            Some(timestamp.map_err(|error| unstorable("timestamp", &error.to_string()))?)
        }
        None => None,
    };
    let metadata = match body.metadata {
        Some(raw) => Metadata::from_queue(raw)
            .map_err(|errors| DecodeError::Unstorable(errors.to_string()))?,
        None => Metadata::default(),
    };
    Ok(Record {
        id,
        user_id: UserId::from_stored(body.user_id.0)
            .ok_or_else(|| unstorable("userId", "must be a non-empty string"))?,
        action: Action::from_stored(body.action.0)
            .ok_or_else(|| unstorable("action", "must be a non-empty string"))?,
        timestamp,
        metadata,
        // Only this system writes the field, so an unreadable value is ignored.
        received_at: body.received_at.and_then(|text| text.0.parse().ok()),
    })
}

impl Record {
    /// Converts the record into an entry with the given id. `queued_at` becomes
    /// the timestamp if the record has none.
    #[must_use]
    pub fn into_entry(self, id: LogId, queued_at: Timestamp) -> LogEntry {
        LogEntry {
            id,
            user_id: self.user_id,
            action: self.action,
            timestamp: self.timestamp.unwrap_or(queued_at),
            metadata: self.metadata,
            received_at: self.received_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn any_number() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), Just(-1)].prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        ]
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[a-z.$\"\\\\\u{0}-\u{1f}]{0,12}",
            Just("$oid".to_owned()),
            Just("__proto__".to_owned()),
        ]
    }

    fn any_key() -> impl Strategy<Value = String> {
        any_text().prop_map(|text| text.replace('\0', ""))
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any_number(),
            any_text().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any_key(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_metadata() -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::hash_map(any_key(), any_value(), 0..6)
            .prop_map(|map| map.into_iter().collect())
    }

    fn any_time() -> impl Strategy<Value = Timestamp> {
        (Timestamp::MIN.as_millis()..=Timestamp::MAX.as_millis())
            .prop_map(|millis| Timestamp::from_millis(millis).unwrap())
    }

    proptest! {
        #[test]
        fn every_valid_entry_round_trips(
            id: [u8; 12],
            user_id in any::<String>().prop_filter_map("valid", |text| UserId::new(text).ok()),
            action in any::<String>().prop_filter_map("valid", |text| Action::new(text).ok()),
            timestamp in any_time(),
            metadata in any_metadata(),
            received_at in prop::option::of(any_time()),
        ) {
            let entry = LogEntry {
                id: LogId::from_bytes(id),
                user_id,
                action,
                timestamp,
                metadata: Metadata::try_from(metadata.clone()).unwrap(),
                received_at,
            };
            let mut bytes = Vec::new();
            encode(&entry, &mut bytes);
            let record = decode(&bytes).unwrap();
            prop_assert_eq!(record.received_at, received_at);
            let id = record.id.unwrap();
            let decoded = record.into_entry(id, Timestamp::MIN);
            prop_assert_eq!(decoded.metadata.to_map(), metadata);
            prop_assert_eq!(decoded, entry);
        }

        #[test]
        fn an_invalid_value_is_found_at_any_depth(
            metadata in any_metadata(),
            path in prop::collection::vec(prop_oneof![Just(None), any_key().prop_map(Some)], 0..8),
            invalid in prop::sample::select(vec![
                "9223372036854775808", "-9223372036854775809", "1e999", "-1e999",
                r#""\ud800""#, r#""\udc00\ud800""#, r#"{"\u0000": 1}"#, r#"{"a": 1, "a": 1}"#,
                r#"{"\ud800": 1}"#,
            ]),
        ) {
            let mut hidden = invalid.to_owned();
            for key in path {
                hidden = match key {
                    Some(key) => format!("{{{}:{hidden}}}", Value::from(key)),
                    None => format!("[1, {hidden}]"),
                };
            }
            let rest = serde_json::to_string(&metadata).unwrap();
            let text = format!("{{\"rest\": {rest}, \"hidden\": {hidden}}}");
            let errors = Metadata::from_json(text).unwrap_err();
            prop_assert_eq!(errors.len(), 1, "{}", errors);
            prop_assert!(errors.iter().all(|error| error.path.starts_with("metadata.hidden")));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn legacy_records_are_decoded() {
        let record = decode(
            br#"{"id":null,"userId":"eyego","action":"ADD_TO_CART","metadata":{},
                 "timestamp":"2026-01-14T23:58:05.442Z"}"#,
        )
        .unwrap();
        assert_eq!(record.id, None);
        assert_eq!(record.received_at, None);
        assert_eq!(record.timestamp.unwrap().to_string(), "2026-01-14T23:58:05.442Z");
    }

    #[test]
    fn limits_of_the_http_api_do_not_apply() {
        let user = "x".repeat(300);
        let record = decode(
            format!(
                r#"{{"userId": "{user}", "action": "A", "metadata": null, "extra": [],
                     "timestamp": "2999-01-01T00:00:00Z"}}"#
            )
            .as_bytes(),
        );
        assert_eq!(record.unwrap().user_id.as_str(), user);
    }

    #[test]
    fn undecodable_records_have_a_code_and_a_reason() {
        let error = |bytes: &[u8]| {
            let error = decode(bytes).unwrap_err();
            (error.code(), error.to_string())
        };
        assert_eq!(error(b"\xff").0, "not_a_record");
        assert_eq!(error(b"poison").0, "not_a_record");
        let string = serde_json::to_vec(&"x".repeat(100_000)).unwrap();
        assert!(error(&string).1.len() < 400, "{}", error(&string).1);
        assert!(error(br#"{"action": "A"}"#).1.contains("missing field `userId`"));
        assert_eq!(
            error(br#"{"userId": "", "action": "A"}"#),
            ("unstorable", "userId must be a non-empty string".to_owned())
        );
        assert_eq!(error(br#"{"id": "7", "userId": "u", "action": "A"}"#).0, "unstorable");
        assert_eq!(
            error(br#"{"userId": "u", "action": "A", "metadata": {"a": 1e999}}"#).0,
            "unstorable"
        );
    }
}
