//! Primaries that step down, freeze and are killed while logs are stored.

use std::sync::atomic::{AtomicBool, Ordering};

use eyego_log_core::LogQuery;
use eyego_log_server::domain::read::ReadError;
use eyego_log_server::domain::repository::{LogRepository as _, StoreError, StoreOutcome};
use stack::mongodb::MongoOptions as StackOptions;

use super::*;

/// Stores bulks one after another, with retries, as the worker does. Returns the number of retries.
async fn store_bulks(repository: &MongoRepository, first: u32, bulks: u32) -> u32 {
    let mut retries = 0;
    for bulk in 0..bulks {
        let start = first + bulk * 100;
        let entries = entries(start..start + 100);
        loop {
            match repository.store(&entries).await {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        let is_stored = matches!(
                            outcome,
                            StoreOutcome::Stored | StoreOutcome::Duplicate { conflicting: false }
                        );
                        assert!(is_stored, "{outcome:?}");
                    }
                    break;
                }
                Err(StoreError::Transient(_)) => {
                    retries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    retries
}

#[tokio::test(flavor = "multi_thread")]
async fn each_log_is_stored_once_while_the_primary_changes() {
    let mongo = Mongo::start(StackOptions::three()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(PartState::is_up).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (repository, is_done) = (store.repository(), Arc::clone(&is_done));
            tokio::spawn(async move {
                let first = writer * 1_000_000;
                let (mut bulks, mut retries) = (0, 0);
                while !is_done.load(Ordering::Relaxed) {
                    retries += store_bulks(&repository, first + bulks * 100, 1).await;
                    bulks += 1;
                }
                (bulks, retries)
            })
        })
        .collect();
    mongo.step_down(Duration::from_secs(20)).await.unwrap();
    mongo.ready().await.unwrap();
    let primary = mongo.primary().await.unwrap();
    mongo.kill(primary).unwrap();
    mongo.ready().await.unwrap();
    mongo.restart(primary).await.unwrap();
    is_done.store(true, Ordering::Relaxed);
    let (mut bulks, mut retries) = (0, 0);
    for writer in writers {
        let (its_bulks, its_retries) = writer.await.unwrap();
        bulks += its_bulks;
        retries += its_retries;
    }
    println!("{bulks} bulks, {retries} retries");
    assert!(retries > 0, "no change of the primary was noticed");
    assert_eq!(count(&store).await, u64::from(bulks) * 100);
}

#[tokio::test]
async fn frozen_mongodb_is_an_error_until_it_resumes() {
    let mongo = Mongo::start(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(|state| *state == PartState::Up).await;
    let repository = store.repository();
    repository.store(&entries(0..10)).await.unwrap();

    mongo.pause(0).unwrap();
    let began = Instant::now();
    let read = repository.find(&LogQuery::default(), unlimited()).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    println!("a read failed after {:?}", began.elapsed());
    store.wait_for(|state| !state.is_up()).await;
    println!("down after {:?}", began.elapsed());
    let stored = repository.store(&entries(0..20)).await;
    assert!(matches!(stored, Err(StoreError::Transient(_))), "{stored:?}");
    mongo.resume(0).unwrap();

    store.wait_for(PartState::is_up).await;
    store_bulks(&repository, 0, 1).await;
    assert_eq!(count(&store).await, 100);
}

#[tokio::test]
async fn nothing_is_acknowledged_without_a_majority() {
    let mongo = Mongo::start(StackOptions::three()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(PartState::is_up).await;
    let repository = store.repository();
    store_bulks(&repository, 0, 1).await;
    let primary = mongo.primary().await.unwrap();
    for member in (0..3).filter(|member| *member != primary) {
        mongo.kill(member).unwrap();
    }
    // The second call finds the documents of the first one, which are not durable either. (A
    // duplicate of a document that a majority has would be acknowledged.)
    let again = async {
        eventually("the first call to write 100 documents", TIMEOUT, async || {
            let count = member_count(&mongo, primary, &store.database).await;
            ensure!(count == 200, "{count} documents");
            Ok(())
        })
        .await
        .unwrap();
        repository.store(&entries(100..200)).await
    };
    let first = entries(100..200);
    let (stored, again) = tokio::join!(repository.store(&first), again);
    assert!(matches!(stored, Err(StoreError::Transient(_))), "{stored:?}");
    assert!(matches!(again, Err(StoreError::Transient(_))), "{again:?}");
    mongo.up().await.unwrap();
    store_bulks(&repository, 0, 3).await;
    assert_eq!(count(&store).await, 300);
}

/// Returns the number of logs on a member, durable or not.
async fn member_count(mongo: &Mongo, member: usize, database: &str) -> u64 {
    let hosts = mongo.uri().trim_start_matches("mongodb://").split('/').next().unwrap();
    let host = hosts.split(',').nth(member).unwrap();
    let uri = format!("mongodb://{host}/?directConnection=true");
    let logs = Client::with_uri_str(uri).await.unwrap().database(database).collection("logs");
    let logs: ::mongodb::Collection<Document> = logs;
    logs.count_documents(doc! {}).await.unwrap()
}
