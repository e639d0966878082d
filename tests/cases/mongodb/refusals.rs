//! Documents that MongoDB rejects, mostly by rules that an operator put on the collection.

use eyego_log_server::domain::dead_letter::{DeadLetter, DeadLetterSummary, DeadLetters as _};
use eyego_log_server::domain::repository::{LogRepository as _, StoreError, StoreOutcome};

use super::*;
use crate::conformance::{at, id};

fn rejections(outcomes: &[StoreOutcome]) -> Vec<(usize, &str, bool)> {
    outcomes
        .iter()
        .enumerate()
        .filter_map(|(n, outcome)| match outcome {
            StoreOutcome::Rejected(rejection) => Some((n, &*rejection.code, rejection.is_known)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn validator_rejects_one_entry_and_not_its_neighbours() {
    let store = Store::shared().await;
    let validator = doc! { "create": "logs", "validator": { "action": { "$ne": "FORBIDDEN" } } };
    let _ = store.raw_database().await.run_command(validator).await;
    let validator = doc! { "collMod": "logs", "validator": { "action": { "$ne": "FORBIDDEN" } } };
    store.raw_database().await.run_command(validator).await.unwrap();
    let mut entries = entries(0..10);
    entries[4] = entry(4, "ada", "FORBIDDEN", 4, "{}");
    let outcomes = store.repository().store(&entries).await.unwrap();
    assert_eq!(rejections(&outcomes), [(4, "mongodb_121", true)]);
    assert_eq!(count(&store).await, 9);
    // Again, when its neighbours are stored already.
    let outcomes = store.repository().store(&entries).await.unwrap();
    assert_eq!(rejections(&outcomes), [(4, "mongodb_121", true)]);
    assert_eq!(outcomes[3], StoreOutcome::Duplicate { conflicting: false });
}

#[tokio::test]
async fn violation_of_an_operators_unique_index_is_a_rejection() {
    let store = Store::shared().await;
    let index = doc! {
        "createIndexes": "logs",
        "indexes": [{ "key": { "metadata.order": 1 }, "name": "order", "unique": true,
            "partialFilterExpression": { "metadata.order": { "$exists": true } } }],
    };
    store.raw_database().await.run_command(index).await.unwrap();
    let first = entry(1, "ada", "ORDER", 1, r#"{"order": 7}"#);
    let other = entry(2, "bob", "ORDER", 2, r#"{"order": 7}"#);
    let outcomes = store.repository().store(&[first.clone(), other.clone()]).await.unwrap();
    assert_eq!(outcomes[0], StoreOutcome::Stored);
    assert_eq!(rejections(&outcomes), [(1, "mongodb_11000", true)]);
    let StoreOutcome::Rejected(rejection) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(rejection.message.contains("metadata.order"), "{rejection:?}");
    // The stored entry is a duplicate, whichever index reports it.
    let outcomes = store.repository().store(&[first, other]).await.unwrap();
    assert_eq!(outcomes[0], StoreOutcome::Duplicate { conflicting: false });
    assert_eq!(rejections(&outcomes).len(), 1);
}

#[tokio::test]
async fn largest_log_is_stored_and_larger_one_is_rejected() {
    let store = Store::shared().await;
    let of_size = |n: u32, size: usize| {
        entry(n, "ada", "LOGIN", 5, &format!(r#"{{"a": "{}"}}"#, "x".repeat(size)))
    };
    // Measured on a document without the text.
    store.repository().store(&[of_size(0, 0)]).await.unwrap();
    let small = store.logs().await.find_one(doc! {}).await.unwrap().unwrap();
    let overhead = ::mongodb::bson::RawDocumentBuf::try_from(&small).unwrap().as_bytes().len();
    let largest = (16 << 20) - overhead;
    let entries =
        [of_size(1, 1), of_size(2, largest), of_size(3, largest + 1), of_size(4, 3 << 20)];
    let outcomes = store.repository().store(&entries).await.unwrap();
    assert_eq!(rejections(&outcomes), [(2, "too_large", true)]);
    assert_eq!(count(&store).await, 4);
    assert_eq!(store.repository().get(id(2)).await.unwrap().as_ref(), Some(&entries[1]));
}

#[tokio::test]
async fn integer_stored_as_a_double_is_not_a_conflict() {
    let store = Store::shared().await;
    let record = br#"{"id": "69682d8d81847b87ab93264b", "userId": "u", "action": "A",
        "timestamp": "2026-01-14T23:58:05.442Z", "metadata": {"n": 12345678901234567000}}"#;
    let record = eyego_log_core::record::decode(record).unwrap();
    let entry = [record.clone().into_entry(record.id.unwrap(), at(0))];
    assert_eq!(store.repository().store(&entry).await.unwrap(), [StoreOutcome::Stored]);
    assert_eq!(
        store.repository().store(&entry).await.unwrap(),
        [StoreOutcome::Duplicate { conflicting: false }]
    );
}

#[tokio::test]
async fn other_document_with_the_same_id_is_a_conflict() {
    let store = Store::shared().await;
    let bytes = *id(1).as_bytes();
    let other = doc! { "_id": ::mongodb::bson::oid::ObjectId::from_bytes(bytes), "x": 1 };
    store.logs().await.insert_one(other).await.unwrap();
    assert_eq!(
        store.repository().store(&entries(1..2)).await.unwrap(),
        [StoreOutcome::Duplicate { conflicting: true }]
    );
}

#[tokio::test]
async fn store_into_a_view_needs_an_operator() {
    let store = Store::shared().await;
    store.wait_for(|state| *state == PartState::Up).await;
    // Logs cannot be stored in a view.
    let view = connect(&store.uri, &store.database, false);
    let database = store.raw_database().await;
    let command = doc! { "create": "view", "viewOn": "logs", "pipeline": [] };
    database.run_command(command).await.unwrap();
    drop(view);
    let options = MongoOptions {
        uri: store.uri.clone(),
        database: store.database.clone(),
        collection: "view".to_owned(),
        create_indexes: false,
    };
    let view = MongoRepository::new(MongoConnection::start(options).unwrap());
    eventually("an error for the operator", TIMEOUT, async || {
        let error = view.store(&entries(0..2)).await.unwrap_err();
        ensure!(matches!(error, StoreError::Operator(_)), "{error:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn dead_letter_that_is_too_large_is_cut() {
    let store = Store::shared().await;
    let summary = DeadLetterSummary {
        id: id(1),
        truncated_from: None,
        user_id: Some("u".repeat(1 << 20)),
        topic: "logs-topic".to_owned(),
        partition: 0,
        offset: 1,
        queued_at: at(1),
        code: "too_large".to_owned(),
        message: "m".repeat(1 << 20),
        attempts: u32::MAX,
        failed_at: at(2),
    };
    let dead_letter = DeadLetter { summary, raw: vec![b'x'; 17 << 20] };
    let dead_letters = store.dead_letters();
    dead_letters.put(&dead_letter).await.unwrap();
    let kept = dead_letters.get(id(1)).await.unwrap().unwrap();
    assert_eq!(kept.summary.truncated_from, Some(17 << 20));
    assert_eq!(kept.raw.len(), 15 << 20);
    assert_eq!(kept.summary.attempts, u32::MAX);
}
