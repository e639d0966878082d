//! What each fuzz target does with its bytes: it must neither panic nor break the property that
//! stands here. The fuzzer and the plain test of the corpora (`tests/cases/fuzz.rs`) share it.

use eyego_log_core::query::Cursor;
use eyego_log_core::{
    IngestRequest, LogId, LogIdGenerator, LogQuery, ParseError, Timestamp, record,
};
use eyego_log_server::infrastructure::queue::sqlite::fuzz_chunk;
use eyego_log_server::interface::http::{fuzz_batch, fuzz_decompression};

/// Takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub(crate) const TARGETS: [(&str, Target); 6] = [
    ("body", body),
    ("batch", fuzz_batch),
    ("decompression", fuzz_decompression),
    ("record", decoded_record),
    ("query", query),
    ("spool", fuzz_chunk),
];

/// Runs the target of this name.
#[allow(dead_code, reason = "each target runs one, the test all")]
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.expect("the target is listed").1(bytes);
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_768_435_085_442).expect("a time of 2026")
}

/// A POST's body: what is accepted is JSON, and survives the queue unchanged; what is refused is
/// told why.
fn body(bytes: &[u8]) {
    match IngestRequest::parse(bytes, now()) {
        Ok(request) => {
            serde_json::from_slice::<serde_json::Value>(bytes).expect("what is accepted is JSON");
            let entry = request.into_entry(LogIdGenerator::new().generate(now()), now());
            let mut encoded = Vec::new();
            record::encode(&entry, &mut encoded);
            let decoded = record::decode(&encoded).expect("what is accepted can be read back");
            assert_eq!(decoded.into_entry(entry.id, now()), entry);
        }
        Err(ParseError::Fields(faults)) => assert!(!faults.is_empty()),
        Err(ParseError::Syntax(fault)) => assert!(!fault.to_string().is_empty()),
    }
}

/// A record from a topic that anybody writes to: what is read is written and read again as the
/// same.
fn decoded_record(bytes: &[u8]) {
    let Ok(first) = record::decode(bytes) else { return };
    let id = first.id.unwrap_or_else(|| LogId::from_bytes([7; 12]));
    let entry = first.into_entry(id, now());
    let mut encoded = Vec::new();
    record::encode(&entry, &mut encoded);
    let second = record::decode(&encoded).expect("what was read can be read again");
    assert_eq!(second.into_entry(id, now()), entry);
}

/// A query string, and a cursor: what is understood means the same when it is written again.
fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
    }
    let pairs: Vec<_> = text.split('&').filter_map(|pair| pair.split_once('=')).collect();
    if let Ok(query) = LogQuery::from_pairs(pairs) {
        let written = query.to_pairs();
        let pairs = written.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(LogQuery::from_pairs(pairs).expect("what was understood still is"), query);
    }
}
