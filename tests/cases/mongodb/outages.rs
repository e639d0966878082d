//! Primaries that step down, freeze and die while logs are stored.

use eyego_log_core::LogQuery;
use eyego_log_server::domain::repository::{
    LogRepository as _, ReadError, StoreError, StoreOutcome,
};
use stack::mongodb::MongoOptions as StackOptions;

use super::*;

/// Stores bulks one after the other, each until it is stored, as the worker
/// does; answers how often that had to be tried again.
async fn store_bulks(repository: &MongoRepository, first: u32, bulks: u32) -> u32 {
    let mut retries = 0;
    for bulk in 0..bulks {
        let start = first + bulk * 100;
        let entries = entries(start..start + 100);
        loop {
            match repository.store(&entries).await {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        let is_there = matches!(
                            outcome,
                            StoreOutcome::Stored | StoreOutcome::Duplicate { conflicting: false }
                        );
                        assert!(is_there, "{outcome:?}");
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
async fn each_log_is_stored_once_through_changes_of_the_primary() {
    let mongo = Mongo::start(StackOptions::three()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(PartState::is_up).await;
    let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (repository, is_done) = (store.repository(), Arc::clone(&is_done));
            tokio::spawn(async move {
                let first = writer * 1_000_000;
                let (mut bulks, mut retries) = (0, 0);
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
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
    is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut bulks, mut retries) = (0, 0);
    for writer in writers {
        let (of_one, again) = writer.await.unwrap();
        bulks += of_one;
        retries += again;
    }
    println!("{bulks} bulks, {retries} of them tried again");
    assert!(retries > 0, "nothing was put to the test");
    assert_eq!(count(&store).await, u64::from(bulks) * 100);
}

#[tokio::test]
async fn a_frozen_mongodb_is_answered_and_recovered_from() {
    let mongo = Mongo::start(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(|state| *state == PartState::Up).await;
    let repository = store.repository();
    repository.store(&entries(0..10)).await.unwrap();

    mongo.pause(0).unwrap();
    let began = Instant::now();
    let read = repository.find(&LogQuery::default()).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    println!("a read is answered after {:?}", began.elapsed());
    store.wait_for(|state| !state.is_up()).await;
    println!("unready after {:?}", began.elapsed());
    let stored = repository.store(&entries(0..20)).await;
    assert!(matches!(stored, Err(StoreError::Transient(_))), "{stored:?}");
    mongo.resume(0).unwrap();

    store.wait_for(PartState::is_up).await;
    store_bulks(&repository, 0, 1).await;
    assert_eq!(count(&store).await, 100);
}

#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged() {
    let mongo = Mongo::start(StackOptions::three()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(PartState::is_up).await;
    let repository = store.repository();
    store_bulks(&repository, 0, 1).await;
    let primary = mongo.primary().await.unwrap();
    for member in (0..3).filter(|member| *member != primary) {
        mongo.kill(member).unwrap();
    }
    // The second finds what the first put there: a duplicate, and as little
    // durable. (What a majority had before is rightly acknowledged.)
    let again = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(member_count(&mongo, primary, &store.database).await, 200);
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

/// How many logs a member has, durable or not.
async fn member_count(mongo: &Mongo, member: usize, database: &str) -> u64 {
    let hosts = mongo.uri().trim_start_matches("mongodb://").split('/').next().unwrap();
    let host = hosts.split(',').nth(member).unwrap();
    let uri = format!("mongodb://{host}/?directConnection=true");
    let logs = Client::with_uri_str(uri).await.unwrap().database(database).collection("logs");
    let logs: ::mongodb::Collection<Document> = logs;
    logs.count_documents(doc! {}).await.unwrap()
}
