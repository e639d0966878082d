//! The fuzz targets. Each takes any bytes, and panics only if a property is violated. The fuzzer and the
//! test of the corpora (`cases/fuzz.rs`) run them.

#![expect(clippy::expect_used, reason = "a violated property must panic")]

use eyego_log_core::query::Cursor;
use eyego_log_core::{
    IngestRequest, LogId, LogIdGenerator, LogQuery, ParseError, Timestamp, record,
};
use eyego_log_server::infrastructure::queue::sqlite::fuzz_chunk;
use eyego_log_server::interface::http::{fuzz_batch, fuzz_decompression};

/// A fuzz target, which takes any bytes.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("body", body),
    ("batch", fuzz_batch),
    ("decompression", fuzz_decompression),
    ("record", decoded_record),
    ("query", query),
    ("spool", fuzz_chunk),
];

/// Runs the target of this name.
///
/// # Panics
/// Panics if there is no such target, or the bytes violate its property.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.expect("no such target").1(bytes);
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_768_435_085_442).expect("a timestamp of 2026")
}

/// Checks the body of a POST: an accepted one is JSON and can be decoded unchanged after it was queued,
/// and a rejected one has an error message.
fn body(bytes: &[u8]) {
    match IngestRequest::parse(bytes, now()) {
        Ok(request) => {
            serde_json::from_slice::<serde_json::Value>(bytes).expect("an accepted body is JSON");
            let entry = request.into_entry(LogIdGenerator::new().generate(now()), now());
            let mut encoded = Vec::new();
            record::encode(&entry, &mut encoded);
            let decoded = record::decode(&encoded).expect("an accepted event can be decoded");
            assert_eq!(decoded.into_entry(entry.id, now()), entry);
        }
        Err(ParseError::Fields(errors)) => assert!(!errors.is_empty()),
        Err(ParseError::Syntax(error)) => assert!(!error.to_string().is_empty()),
    }
}

/// Checks a record from a topic that others write to as well: a decoded one is the same after it was
/// encoded and decoded again.
fn decoded_record(bytes: &[u8]) {
    let Ok(first) = record::decode(bytes) else { return };
    let id = first.id.unwrap_or_else(|| LogId::from_bytes([7; 12]));
    let entry = first.into_entry(id, now());
    let mut encoded = Vec::new();
    record::encode(&entry, &mut encoded);
    let second = record::decode(&encoded).expect("an encoded record can be decoded");
    assert_eq!(second.into_entry(id, now()), entry);
}

/// Checks a query string and a cursor: a parsed one is the same after it was formatted and parsed again.
fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
    }
    let pairs: Vec<_> = text.split('&').filter_map(|pair| pair.split_once('=')).collect();
    if let Ok(query) = LogQuery::from_pairs(pairs) {
        let written = query.to_pairs();
        let pairs = written.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(LogQuery::from_pairs(pairs).expect("a formatted query can be parsed"), query);
    }
}
