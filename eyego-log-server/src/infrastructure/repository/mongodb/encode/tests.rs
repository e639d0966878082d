//! Compares encoded documents with those of the `bson` crate, and decodes them.

use bson::{Bson, RawDocumentBuf, doc};
use eyego_log_core::{Action, LogId, Metadata, UserId};
use proptest::prelude::*;
use serde_json::{Map, Number, Value as Json};

use super::super::decode;
use super::*;

fn entry(metadata: Metadata) -> LogEntry {
    LogEntry::new(
        LogId::from_bytes([9; 12]),
        UserId::new("u").unwrap(),
        Action::new("A").unwrap(),
        Timestamp::from_millis(-5).unwrap(),
        metadata,
    )
}

fn encode(entry: &LogEntry) -> RawDocumentBuf {
    let mut out = Vec::new();
    push_entry(&mut out, entry).unwrap();
    RawDocumentBuf::from_bytes(out).unwrap()
}

/// Returns the BSON value that the encoder must write.
fn expected(value: &Json) -> Bson {
    match value {
        Json::Null => Bson::Null,
        Json::Bool(value) => Bson::Boolean(*value),
        Json::Number(number) => match number.as_i64() {
            Some(n) => i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32),
            None => Bson::Double(number.as_f64().unwrap()),
        },
        Json::String(text) => Bson::String(text.clone()),
        Json::Array(elements) => Bson::Array(elements.iter().map(expected).collect()),
        Json::Object(members) => {
            Bson::Document(members.iter().map(|(k, v)| (k.clone(), expected(v))).collect())
        }
    }
}

fn any_number() -> impl Strategy<Value = Json> {
    prop_oneof![
        any::<i64>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 31, -(1 << 31) - 1])
            .prop_map(Json::from),
        any::<f64>().prop_filter_map("finite", |f| Number::from_f64(f).map(Json::Number)),
        prop::sample::select(vec![0.0, -0.0, 1.0, 1e300, 5e-324, 9_223_372_036_854_776_000.0])
            .prop_map(Json::from),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| text.replace('\0', "")),
        "[a-z.$\"\\\\\u{1}-\u{1f}]{0,6}",
        prop::sample::select(vec!["$oid", "$numberLong", "a.b", "", "$", "__proto__", "0"])
            .prop_map(str::to_owned),
    ]
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any_number(),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 48, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..13).prop_map(Json::from),
            prop::collection::hash_map(any_key(), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn any_metadata() -> impl Strategy<Value = Map<String, Json>> {
    prop::collection::hash_map(any_key(), any_value(), 0..6)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn encoded_entries_are_valid_bson_and_round_trip(
        map in any_metadata(),
        user_id in any::<String>().prop_filter_map("valid", |text| UserId::new(text).ok()),
        received_at in prop::option::of(-1_000_000_000_000_i64..1_000_000_000_000),
    ) {
        let mut entry = entry(Metadata::try_from(map.clone()).unwrap());
        entry.user_id = user_id;
        entry.received_at = received_at.and_then(Timestamp::from_millis);
        let raw = encode(&entry);
        let document = bson::Document::try_from(&*raw).unwrap();
        let metadata = document.get("metadata").unwrap();
        let expected = expected(&Json::Object(map));
        prop_assert_eq!(metadata, &expected);
        // -0.0 equals 0.0, but prints differently.
        prop_assert_eq!(format!("{metadata:?}"), format!("{expected:?}"));

        let read = decode::entry(&raw).unwrap();
        prop_assert_eq!(&read, &entry);
        prop_assert_eq!(
            format!("{:?}", read.metadata.to_map()),
            format!("{:?}", entry.metadata.to_map())
        );
    }

    #[test]
    fn array_indexes_are_decimal(index: usize) {
        let mut out = Vec::new();
        push_index(&mut out, NULL, index);
        let decimal = index.to_string();
        prop_assert_eq!(&out[1..out.len() - 1], decimal.as_bytes());
    }
}

#[test]
fn the_document_has_the_fields_of_the_contract() {
    let metadata = Metadata::from_json(r#" { "b" : [ 1 , 2.0 ], "a": {} } "#.to_owned());
    let mut received = entry(metadata.unwrap());
    received.received_at = Timestamp::from_millis(7);
    let raw = encode(&received);
    let document = bson::Document::try_from(&*raw).unwrap();
    let expected = doc! {
        "_id": bson::oid::ObjectId::from_bytes([9; 12]),
        "userId": "u",
        "action": "A",
        "timestamp": bson::DateTime::from_millis(-5),
        "metadata": { "b": [1, 2.0], "a": {} },
        "receivedAt": bson::DateTime::from_millis(7),
    };
    assert_eq!(document, expected);
    assert_eq!(
        raw.as_bytes(),
        RawDocumentBuf::try_from(&expected).unwrap().as_bytes(),
        "byte for byte, so in the same order"
    );
    assert!(!encode(&entry(Metadata::default())).iter().any(|e| e.unwrap().0 == "receivedAt"));
}

#[test]
fn an_integer_outside_i64_becomes_a_double() {
    let text = r#"{"fromJavaScript": 12345678901234567000}"#;
    let metadata = Metadata::from_stored(text.to_owned()).unwrap();
    let raw = encode(&entry(metadata));
    let number = raw.get_document("metadata").unwrap().get_f64("fromJavaScript").unwrap();
    assert_eq!(number.to_string(), "12345678901234567000");
}

#[test]
fn a_failed_encoding_leaves_the_output_unchanged() {
    let mut out = vec![1, 2, 3];
    for text in [r#"{"a\u0000b": 1}"#.to_owned(), r#"{"a": [1, "\ud800"]}"#.to_owned()] {
        let metadata = Metadata::from_stored(text).unwrap();
        push_entry(&mut out, &entry(metadata)).unwrap_err();
        assert_eq!(out, [1, 2, 3]);
    }
}
