//! Splitting bulks into commands, and reading responses.

use bson::doc;
use eyego_log_core::{Action, LogId, Metadata, Timestamp, UserId};

use super::*;

fn entry(number: usize, metadata: &str) -> LogEntry {
    let mut id = [0; 12];
    id[4..].copy_from_slice(&number.to_be_bytes());
    LogEntry::new(
        LogId::from_bytes(id),
        UserId::new("u").unwrap(),
        Action::new("A").unwrap(),
        Timestamp::from_millis(1).unwrap(),
        Metadata::from_stored(metadata.to_owned()).unwrap(),
    )
}

fn of_size(number: usize, size: usize) -> LogEntry {
    entry(number, &format!(r#"{{"k": "{}"}}"#, "x".repeat(size)))
}

fn documents(insert: &Insert) -> Vec<Document> {
    let command = Document::try_from(&*insert.command).unwrap();
    assert_eq!(command.keys().next().unwrap(), "insert");
    let documents = command.get_array("documents").unwrap();
    let keys = insert.command.get_array("documents").unwrap();
    let raw = bson::RawDocument::from_bytes(keys.as_bytes()).unwrap();
    for (index, element) in raw.iter().enumerate() {
        assert_eq!(element.unwrap().0.as_str(), index.to_string());
    }
    documents.iter().map(|document| document.as_document().unwrap().clone()).collect()
}

fn assert_all_are_sent(inserts: &[Insert], entries: &[LogEntry], rejected: &[usize]) {
    let mut sent: Vec<usize> = Vec::new();
    for insert in inserts {
        assert!(insert.command.as_bytes().len() <= (16 << 20) + (16 << 10));
        let documents = documents(insert);
        assert_eq!(documents.len(), insert.entries.len());
        for (document, index) in documents.iter().zip(&insert.entries) {
            let id = document.get_object_id("_id").unwrap();
            assert_eq!(id.bytes(), *entries[*index].id.as_bytes());
        }
        sent.extend(&insert.entries);
    }
    sent.extend(rejected);
    sent.sort_unstable();
    assert!(sent.into_iter().eq(0..entries.len()));
}

#[test]
fn a_bulk_is_one_command_with_a_majority_write_concern() {
    let entries: Vec<_> = (0..1000).map(|n| entry(n, r#"{"a": 1}"#)).collect();
    let Plan { inserts, rejected } = plan("logs", &entries).unwrap();
    assert_eq!((inserts.len(), rejected.len()), (1, 0));
    assert_all_are_sent(&inserts, &entries, &[]);
    let command = Document::try_from(&*inserts[0].command).unwrap();
    assert_eq!(command.get_str("insert").unwrap(), "logs");
    assert!(!command.get_bool("ordered").unwrap());
    let concern = doc! { "w": "majority", "j": true, "wtimeout": 10_000_i64 };
    assert_eq!(command.get_document("writeConcern").unwrap(), &concern);
}

#[test]
fn a_large_bulk_is_split_by_size_and_by_number() {
    let entries: Vec<_> = (0..40).map(|n| of_size(n, 1 << 20)).collect();
    let Plan { inserts, rejected } = plan("logs", &entries).unwrap();
    assert!(rejected.is_empty());
    assert_eq!(inserts.len(), 3);
    assert_all_are_sent(&inserts, &entries, &[]);

    let entries: Vec<_> = (0..25_000).map(|n| entry(n, "{}")).collect();
    let Plan { inserts, .. } = plan("logs", &entries).unwrap();
    assert_eq!(inserts.len(), 3);
    assert_all_are_sent(&inserts, &entries, &[]);
    assert_eq!(plan("logs", &[]).unwrap().inserts.len(), 0);
}

#[test]
fn an_unstorable_entry_does_not_affect_the_others() {
    let overhead = {
        let Plan { inserts, .. } = plan("logs", &[of_size(0, 0)]).unwrap();
        let documents = inserts[0].command.get_array("documents").unwrap();
        documents.get_document(0).unwrap().as_bytes().len()
    };
    let largest = MAX_DOCUMENT_BYTES - overhead;
    let entries = [
        of_size(0, 1),
        of_size(1, largest + 1),
        of_size(2, largest),
        entry(3, r#"{"a\u0000": 1}"#),
        of_size(4, 1),
    ];
    let Plan { inserts, rejected } = plan("logs", &entries).unwrap();
    assert_eq!(rejected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(rejected[0].1.code, "too_large");
    assert_eq!(rejected[1].1.code, "unstorable");
    assert!(rejected.iter().all(|(_, rejection)| rejection.is_known));
    assert_all_are_sent(&inserts, &entries, &[1, 3]);
}

#[test]
fn each_refused_document_has_its_reason() {
    let response = doc! { "n": 1, "ok": 1.0, "writeErrors": [
        { "index": 0, "code": 11000, "keyPattern": { "_id": 1 }, "errmsg": "E11000 …" },
        { "index": 2, "code": 11000, "keyPattern": { "userId": 1, "action": 1 }, "errmsg": "u" },
        { "index": 3, "code": 121, "errmsg": "Document failed validation" },
        { "index": 4, "code": 4711, "errmsg": "unknown" },
        { "index": 5, "code": 11000, "errmsg": "E11000 … index: _id_ dup key: …" },
    ] };
    let refusals = refusals(&response, 6).unwrap();
    assert_eq!(refusals[0], (0, Refusal::DuplicateId));
    let (2, Refusal::DuplicateKey(other)) = &refusals[1] else { panic!("{refusals:?}") };
    assert_eq!(other.code, "mongodb_11000");
    assert!(other.is_known && other.message.ends_with("(userId, action)"), "{other:?}");
    let (3, Refusal::Rejected(invalid)) = &refusals[2] else { panic!("{refusals:?}") };
    assert_eq!(invalid.code, "mongodb_121");
    assert!(invalid.is_known);
    let (4, Refusal::Rejected(unknown)) = &refusals[3] else { panic!("{refusals:?}") };
    assert_eq!(unknown.code, "mongodb_4711");
    assert!(!unknown.is_known);
    assert_eq!(refusals[4], (5, Refusal::DuplicateId));
}

#[test]
fn a_failed_write_concern_fails_the_whole_call() {
    let concern = |code: i32| {
        let response = doc! { "n": 2, "ok": 1.0, "writeErrors": [],
        "writeConcernError": { "code": code, "codeName": "Name", "errmsg": "text" } };
        refusals(&response, 2).unwrap_err().class
    };
    assert_eq!(concern(64), Class::Transient);
    assert_eq!(concern(91), Class::Transient);
    assert_eq!(concern(4711), Class::Transient);
    assert_eq!(concern(100), Class::Operator);
}

#[test]
fn an_error_that_no_document_causes_fails_the_whole_call() {
    let with = |code: i32| {
        let response = doc! { "n": 0, "writeErrors": [{ "index": 0, "code": code, "errmsg": "" }] };
        refusals(&response, 1)
    };
    assert_eq!(with(112).unwrap_err().class, Class::Transient);
    assert_eq!(with(10107).unwrap_err().class, Class::Transient);
    assert_eq!(with(14031).unwrap_err().class, Class::Operator);
}

#[test]
fn an_inconsistent_response_acknowledges_nothing() {
    for response in [
        doc! { "n": 1 },
        doc! {},
        doc! { "n": 3 },
        doc! { "n": 2, "writeErrors": [{ "index": 2, "code": 121 }] },
        doc! { "n": 2, "writeErrors": [{ "index": 0, "code": 121 }] },
        doc! { "n": 1, "writeErrors": ["?"] },
    ] {
        assert_eq!(refusals(&response, 2).unwrap_err().class, Class::Transient, "{response}");
    }
    assert_eq!(refusals(&doc! { "n": 2_i64 }, 2), Ok(vec![]));
    assert_eq!(refusals(&doc! { "n": 2.0 }, 2), Ok(vec![]));
}
