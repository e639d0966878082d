//! A MongoDB that starts late, and the creation of the indexes.

use eyego_log_core::LogQuery;
use eyego_log_core::query::{Order, Start};
use eyego_log_server::domain::dead_letter::{DeadLetterQuery, DeadLetters as _};
use eyego_log_server::domain::read::ReadError;
use eyego_log_server::domain::repository::{LogRepository as _, StoreError};
use futures_util::TryStreamExt as _;
use stack::mongodb::MongoOptions as StackOptions;

use super::*;
use crate::conformance::id;

#[tokio::test]
async fn mongodb_that_starts_later_is_found() {
    let mongo = Mongo::prepare(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
    let repository = store.repository();
    assert!(matches!(repository.health().state, PartState::Down(_)), "its state is known at once");

    let began = Instant::now();
    let error = repository.store(&entries(0..3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Transient(_)), "{error:?}");
    let error = repository.find(&LogQuery::default(), unlimited()).await.unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)), "{error:?}");
    assert!(matches!(repository.get(id(1)).await, Err(ReadError::Unavailable(_))));
    let dead_letters = store.dead_letters();
    let query = DeadLetterQuery { limit: 1, ..DeadLetterQuery::default() };
    assert!(matches!(dead_letters.list(&query, unlimited()).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(dead_letters.remove(id(1)).await, Err(StoreError::Transient(_))));
    assert!(began.elapsed() < Duration::from_secs(20), "calls fail quickly during an outage");
    let refused = |state: &PartState| {
        matches!(state, PartState::Down(reason)
            if reason.contains("cannot be reached") && reason.contains("refused") && reason.contains("(127.0.0.1:"))
    };
    store.wait_for(refused).await;

    mongo.up().await.unwrap();
    store.wait_for(|state| *state == PartState::Up).await;
    let outcomes = repository.store(&entries(0..3)).await.unwrap();
    assert_eq!(outcomes.len(), 3);
    assert_eq!(count(&store).await, 3);

    mongo.kill(0).unwrap();
    store.wait_for(refused).await;
    mongo.restart(0).await.unwrap();
    store.wait_for(|state| *state == PartState::Up).await;

    store.connection.shutdown(Instant::now() + TIMEOUT).await;
    let error = repository.store(&entries(0..3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Transient(_)), "{error:?}");
}

#[tokio::test]
async fn missing_indexes_are_created() {
    let store = Store::shared().await;
    // Existing documents are indexed in the background.
    store.repository().store(&entries(0..10)).await.unwrap();
    let dead_letters = store.raw_database().await.collection::<Document>("dead-letters");
    eventually("the indexes of the dead letters", TIMEOUT, async || {
        let names = dead_letters.list_index_names().await?;
        ensure!(names.len() >= 3, "{names:?}");
        Ok(())
    })
    .await
    .unwrap();
    let names = store.logs().await.list_index_names().await.unwrap();
    assert_eq!(
        names,
        [
            "_id_",
            "userId_1_timestamp_-1__id_-1_action_1",
            "timestamp_-1__id_-1_action_1_userId_1",
            "action_1_timestamp_-1__id_-1_userId_1",
        ]
    );
    store.wait_for(|state| *state == PartState::Up).await;

    // Queries use them, and examine no more than a page of documents.
    let repository = store.repository();
    repository.store(&entries(0..500)).await.unwrap();
    let database = store.raw_database().await;
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    let action = Some(entries(0..1)[0].action.as_str().to_owned());
    for (user_id, action) in [(None, None), (Some("ada".to_owned()), None), (None, action)] {
        for order in [Order::Ascending, Order::Descending] {
            let mut query = LogQuery {
                user_id: user_id.clone(),
                action: action.clone(),
                order,
                ..LogQuery::default()
            };
            for _ in 0..3 {
                let next = repository.find(&query, unlimited()).await.unwrap().next.unwrap();
                query.start = Start::After(next);
            }
        }
    }
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let filter = doc! { "op": "query", "command.find": "logs" };
    let profile = database.collection::<Document>("system.profile");
    let profiled: Vec<_> = profile.find(filter).await.unwrap().try_collect().await.unwrap();
    assert_eq!(profiled.len(), 18);
    for query in profiled {
        let plan = query.get_str("planSummary").unwrap();
        assert!(plan.starts_with("IXSCAN") && plan.contains("timestamp: -1"), "{query}");
        assert!(!query.contains_key("hasSortStage"), "{query}");
        let examined = query.get_i32("docsExamined").unwrap();
        assert!(examined <= 13, "{query}");
    }
}

#[tokio::test]
async fn indexes_of_earlier_versions_are_replaced() {
    let uri = Mongo::shared().await.unwrap().uri().to_owned();
    let mut store = Store::with(&uri, false);
    let former = doc! { "timestamp": -1, "_id": -1 };
    let existing = doc! {
        "createIndexes": "logs",
        "indexes": [
            { "key": { "userId": 1, "timestamp": -1, "_id": -1 },
              "name": "userId_1_timestamp_-1__id_-1", "collation": { "locale": "simple" } },
            { "key": former, "name": "timestamp_-1__id_-1" },
            { "key": { "metadata.page": 1 }, "name": "of_an_operator" },
        ],
    };
    store.raw_database().await.run_command(existing).await.unwrap();
    store.repository().store(&entries(0..10)).await.unwrap();
    store.connection = connect(&uri, &store.database, true);
    eventually("the former indexes to be dropped", TIMEOUT, async || {
        let names = store.logs().await.list_index_names().await?;
        let former = names.iter().any(|name| name.ends_with("__id_-1"));
        ensure!(!former && names.len() == 5, "{names:?}");
        ensure!(names.iter().any(|name| name == "of_an_operator"), "{names:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn rejected_credentials_need_an_operator() {
    let uri = Mongo::shared().await.unwrap().uri().to_owned();
    let hosts = uri.trim_start_matches("mongodb://");
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    let store = Store::at(&format!("mongodb://alice:s3cr3t@{hosts}"));
    let error = store.repository().store(&entries(0..3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Operator(_)), "{error:?}");
    let refused = |state: &PartState| matches!(state, PartState::Down(r) if r.contains("refuses"));
    let state = store.wait_for(refused).await;
    assert!(!format!("{state:?}{error:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn missing_indexes_are_a_warning_if_creation_is_disabled() {
    let uri = Mongo::shared().await.unwrap().uri().to_owned();
    let store = Store::with(&uri, false);
    let state = store.wait_for(PartState::is_up).await;
    let PartState::Warning(warning) = state else { panic!("{state:?}") };
    assert!(warning.contains("missing") && warning.contains("userId"), "{warning}");
    store.repository().store(&entries(0..3)).await.unwrap();
    assert_eq!(store.logs().await.list_index_names().await.unwrap(), ["_id_"]);
}

#[tokio::test]
async fn failed_index_build_is_a_warning() {
    let uri = Mongo::shared().await.unwrap().uri().to_owned();
    let mut store = Store::with(&uri, false);
    // A different index with the name of the server's index.
    let taken = doc! {
        "createIndexes": "logs",
        "indexes": [{ "key": { "x": 1 }, "name": "timestamp_-1__id_-1_action_1_userId_1" }],
    };
    store.raw_database().await.run_command(taken).await.unwrap();
    store.connection = connect(&uri, &store.database, true);
    let state = store
        .wait_for(|state| matches!(state, PartState::Warning(w) if w.contains("cannot be created")))
        .await;
    assert!(state.is_up());
    store.repository().store(&entries(0..3)).await.unwrap();
}

#[tokio::test]
async fn standalone_is_supported() {
    let mongo = Mongo::start(StackOptions::standalone()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(|state| *state == PartState::Up).await;
    let repository = store.repository();
    let entries = entries(0..10);
    for expected in ["Stored", "Duplicate { conflicting: false }"] {
        for outcome in repository.store(&entries).await.unwrap() {
            assert_eq!(format!("{outcome:?}"), expected);
        }
    }
    assert_eq!(repository.get(id(3)).await.unwrap().as_ref(), Some(&entries[3]));
    store.dead_letters().remove(id(3)).await.unwrap();
    mongo.kill(0).unwrap();
    mongo.restart(0).await.unwrap();
    store.wait_for(|state| *state == PartState::Up).await;
    assert_eq!(count(&store).await, 10, "acknowledged logs are durable on a standalone as well");
}
