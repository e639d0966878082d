//! Metadata is returned unchanged, and metadata filters match as [`MetadataFilter::matches`]
//! specifies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use eyego_log_core::query::MetadataFilter;
use eyego_log_core::{LogEntry, LogQuery, Metadata, Timestamp};
use eyego_log_server::domain::repository::LogRepository;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::{Fixture, find, store};
use crate::conformance::{blocking, entry};

pub(super) async fn unusual_logs_are_returned_unchanged(fixture: Fixture) {
    let repository = fixture.repository();
    let user = "ü".repeat(300);
    let mut legacy = entry(104, "x", "LEGACY", 5, "{}");
    legacy.received_at = None;
    let entries: Vec<_> = [
        "{}",
        r#"{"min": -9223372036854775808, "max": 9223372036854775807, "zero": 0}"#,
        r#"{"beyond a float": 9007199254740993, "float": 9007199254740992.0}"#,
        r#"{"one": 1, "also one": 1.0, "int32": 2147483647, "int64": 2147483648}"#,
        r#"{"large": 1.7976931348623157e308, "tiny": 5e-324, "tenth": 0.1, "beyond": 1e19}"#,
        r#"{"a.b": 1, "a": {"b": 2}, ".": 3, "a..b": 4}"#,
        r#"{"$set": {"$oid": "69682d8d81847b87ab93264b"}, "$date": 0, "x": {"$numberLong": "1"}}"#,
        r#"{"id": {"$oid": "69682d8d81847b87ab93264b"}, "_id": 1, "__proto__": {}}"#,
        r#"{"": {"": ""}}"#,
        r#"{"nul": "a\u0000b", "escapes": "\"\\\/\b\f\n\r\t", "é": "\u00e9", "😀": "\ud83d\ude00"}"#,
        r#"{"nested": [[], {}, [[1, [null, true, {"deep": [false]}]]], "text"]}"#,
        r#"{"0": "zero", "1": ["one"]}"#,
    ]
    .into_iter()
    .zip(0..)
    .map(|(metadata, n)| entry(n, &user, "ADD\u{7f} TO 'CART' %\"", i64::from(n), metadata))
    .chain([
        entry(100, "x", "EPOCH", 0, "{}"),
        entry(101, "x", "BEFORE", -1, "{}"),
        entry(102, "x", "FIRST", Timestamp::MIN.as_millis(), "{}"),
        entry(103, "x", "LAST", Timestamp::MAX.as_millis(), "{}"),
        legacy,
        entry(105, "x", "DEEP", 5, &("{\"a\":".repeat(31) + "{}" + &"}".repeat(31))),
    ])
    .collect();
    store(&repository, &entries).await;

    let query = LogQuery { limit: 100, ..LogQuery::default() };
    let found = find(&repository, &query).await;
    for entry in &entries {
        let stored = repository.get(entry.id).await.unwrap().unwrap();
        assert_eq!(&stored, entry);
        assert_eq!(stored.received_at, entry.received_at);
        assert_eq!(found.iter().find(|found| found.id == entry.id), Some(entry));
    }
    let query = LogQuery { user_id: Some(user), limit: 100, ..LogQuery::default() };
    assert_eq!(find(&repository, &query).await.len(), 12, "by a long userId");
}

pub(super) async fn any_metadata_is_returned_unchanged(fixture: Fixture) {
    let repository = fixture.repository();
    let ids = AtomicU32::new(0);
    check(48, prop::collection::vec(any_metadata(), 1..8), |maps| {
        let entries: Vec<_> = maps.into_iter().map(|map| with_metadata(&ids, "ada", map)).collect();
        Handle::current().block_on(async {
            store(&repository, &entries).await;
            for entry in &entries {
                let stored = repository.get(entry.id).await.unwrap().unwrap();
                assert_eq!(stored.metadata.to_map(), entry.metadata.to_map());
            }
        });
    });
}

pub(super) async fn metadata_filters_match_as_specified(fixture: Fixture) {
    let repository = fixture.repository();
    let ids = AtomicU32::new(0);
    let filters = prop::collection::vec(prop::collection::vec(filter(), 1..3), 12);
    check(48, (prop::collection::vec(small_object(), 1..12), filters), |(maps, filters)| {
        // A new user separates the cases.
        let user = format!("user-{}", ids.load(Ordering::Relaxed));
        let entries: Vec<_> = maps.into_iter().map(|map| with_metadata(&ids, &user, map)).collect();
        Handle::current().block_on(async {
            store(&repository, &entries).await;
            for filters in filters {
                assert_filtered(&repository, &user, &entries, filters).await;
            }
        });
    });
}

async fn assert_filtered(
    repository: &Arc<dyn LogRepository>,
    user: &str,
    entries: &[LogEntry],
    filters: Vec<MetadataFilter>,
) {
    let expected: Vec<_> = entries
        .iter()
        .rev()
        .filter(|entry| {
            let metadata = entry.metadata.to_map();
            filters.iter().all(|filter| filter.matches(&metadata))
        })
        .cloned()
        .collect();
    let query = LogQuery {
        user_id: Some(user.to_owned()),
        metadata: filters,
        limit: 100,
        ..LogQuery::default()
    };
    assert_eq!(find(repository, &query).await, expected, "{query:?}");
}

/// Runs a property this many times, on this thread, which may block.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    // No shrinking, because the store keeps the logs of earlier cases.
    let config =
        Config { cases, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let outcome = blocking(|| {
        TestRunner::new(config).run(&strategy, |value| {
            property(value);
            Ok(())
        })
    });
    outcome.unwrap();
}

fn with_metadata(ids: &AtomicU32, user: &str, map: Map<String, Value>) -> LogEntry {
    let n = ids.fetch_add(1, Ordering::Relaxed);
    let metadata = Metadata::try_from(map).unwrap();
    let mut entry = entry(n, user, "LOGIN", i64::from(n), "{}");
    entry.metadata = metadata;
    entry
}

fn any_metadata() -> impl Strategy<Value = Map<String, Value>> {
    let text = || prop_oneof![any::<String>(), "[a-z.$\\PC\u{0}-\u{1f}]{0,8}"];
    let key = move || {
        prop_oneof![
            4 => text().prop_map(|text| text.replace('\0', "")),
            1 => prop::sample::select(vec!["$oid", "$date", "$numberInt", "a.b", "", "_id"])
                .prop_map(str::to_owned),
        ]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(key(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let key = text().prop_map(|text| text.replace('\0', ""));
    prop::collection::hash_map(key, value, 0..6).prop_map(|map| map.into_iter().collect())
}

const SMALL_KEYS: &[&str] = &["a", "b", "a.b", "b.a", ".", "", "$a", "0"];

/// Objects with few keys and values, so that filters often match.
fn small_object() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop::sample::select(vec![
        Value::Null,
        Value::from(true),
        Value::from(false),
        Value::from(1),
        Value::from(1.0),
        Value::from(1.5),
        Value::from(0),
        Value::from(i64::MAX),
        Value::from(9_007_199_254_740_993_i64),
        Value::from(9_007_199_254_740_992.0),
        Value::from("1"),
        Value::from("null"),
        Value::from("true"),
        Value::from("a"),
        Value::from(""),
        Value::from("a\0b"),
    ]);
    let keys = || prop::sample::select(SMALL_KEYS).prop_map(str::to_owned);
    let value = leaf.prop_recursive(4, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(keys(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::hash_map(keys(), value, 0..5).prop_map(|map| map.into_iter().collect())
}

fn filter() -> impl Strategy<Value = MetadataFilter> {
    let path = prop::collection::vec(prop::sample::select(SMALL_KEYS), 1..4)
        .prop_map(|segments| segments.join("."))
        .prop_filter("at most 8 segments", |path| path.split('.').count() <= 8);
    let value = prop::sample::select(vec![
        "1",
        "1.0",
        "1e0",
        "1.5",
        "0",
        "-0",
        "true",
        "false",
        "null",
        "a",
        "",
        " 1",
        "{}",
        "[]",
        "9223372036854775807",
        "9223372036854775808",
        "9007199254740992",
        "9007199254740993",
        "9007199254740992.0",
        "a\0b",
        ".*",
        "$a",
    ]);
    (path, value).prop_map(|(path, value)| MetadataFilter::new(&path, value).unwrap())
}
