//! The limits of the pipeline to MongoDB: large bulks, a slow primary, and more readers than there
//! are connections.

use std::sync::atomic::{AtomicBool, Ordering};

use eyego_log_core::LogQuery;
use eyego_log_core::query::MetadataFilter;
use eyego_log_server::domain::read::ReadError;
use eyego_log_server::domain::repository::{LogRepository as _, StoreOutcome};
use serde_json::json;
use stack::kafka::Kafka;
use stack::mongodb::MongoOptions as StackOptions;

use super::*;
use crate::conformance::id;
use crate::fixture::{Deployment, get, logs, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

/// A MongoDB with fail points.
async fn with_fail_points() -> Mongo {
    let args = vec!["--setParameter".to_owned(), "enableTestCommands=1".to_owned()];
    Mongo::start(StackOptions { args, ..StackOptions::default() }).await.unwrap()
}

/// Delays each of these commands by `millis`. With 0, ends that.
async fn delay(mongo: &Mongo, commands: &[&str], millis: i32) {
    let command = if millis == 0 {
        doc! { "configureFailPoint": "failCommand", "mode": "off" }
    } else {
        doc! {
            "configureFailPoint": "failCommand",
            "mode": "alwaysOn",
            "data": {
                "failCommands": commands,
                "blockConnection": true,
                "blockTimeMS": millis,
            },
        }
    };
    let client = Client::with_uri_str(mongo.uri()).await.unwrap();
    client.database("admin").run_command(command).await.unwrap();
}

fn of_size(n: u32, bytes: usize) -> LogEntry {
    entry(n, "ada", "LOGIN", i64::from(n), &format!(r#"{{"a": "{}"}}"#, "x".repeat(bytes)))
}

#[tokio::test]
async fn bulk_larger_than_a_message_is_stored() {
    let store = Store::shared().await;
    // Together more than 48 MB: two documents just below 16 MiB, and many of 240 KiB.
    let mut bulk: Vec<_> = (0..100).map(|n| of_size(n, 240 << 10)).collect();
    bulk.insert(50, of_size(1_000, (16 << 20) - 300));
    bulk.push(of_size(1_001, (16 << 20) - 300));
    let bytes: usize = bulk.iter().map(|entry| entry.metadata.as_json().len()).sum();
    assert!(bytes > 48_000_000, "{bytes}");
    let repository = store.repository();
    let same = StoreOutcome::Duplicate { conflicting: false };
    for expected in [StoreOutcome::Stored, same] {
        let outcomes = repository.store(&bulk).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == expected), "{outcomes:?}");
    }
    assert_eq!(count(&store).await, 102);
    assert_eq!(repository.get(id(1_001)).await.unwrap().as_ref(), bulk.last());
}

#[tokio::test]
async fn small_events_under_the_ids_of_large_ones_conflict() {
    let store = Store::shared().await;
    let repository = store.repository();
    let large: Vec<_> = (0..100).map(|n| of_size(n, 240 << 10)).collect();
    repository.store(&large).await.unwrap();
    let outcomes = repository.store(&entries(0..101)).await.unwrap();
    let conflict = StoreOutcome::Duplicate { conflicting: true };
    assert!(outcomes[..100].iter().all(|outcome| *outcome == conflict), "{outcomes:?}");
    assert_eq!(outcomes[100], StoreOutcome::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn eighty_readers_delay_neither_the_worker_nor_reads_by_id() {
    let mongo = with_fail_points().await;
    let store = Store::at(mongo.uri());
    store.wait_for(|state| *state == PartState::Up).await;
    let repository = store.repository();
    repository.store(&entries(0..100)).await.unwrap();
    delay(&mongo, &["find"], 3_000).await;
    let metadata = vec![MetadataFilter::new("page", "none such").unwrap()];
    let scan = LogQuery { metadata, ..LogQuery::default() };
    let is_done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..80)
        .map(|_| {
            let (repository, scan) = (repository.clone(), scan.clone());
            let is_done = Arc::clone(&is_done);
            tokio::spawn(async move {
                let (mut found, mut refused) = (0, 0);
                while !is_done.load(Ordering::Relaxed) {
                    match repository.find(&scan, unlimited()).await {
                        Ok(_) => found += 1,
                        Err(ReadError::Overloaded(_)) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                (found, refused)
            })
        })
        .collect();
    for n in 0..20 {
        // Inserts are not delayed by the fail point.
        let began = Instant::now();
        repository.store(&entries(1_000 + n..1_001 + n)).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    }
    let began = Instant::now();
    // Each read is delayed by the fail point once, but does not wait for the scans.
    assert_eq!(repository.get(id(3)).await.unwrap(), Some(entries(3..4).remove(0)));
    let page = repository.find(&LogQuery::default(), unlimited()).await.unwrap();
    assert_eq!(page.entries.len(), 10);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    is_done.store(true, Ordering::Relaxed);
    let (mut found, mut refused) = (0, 0);
    for reader in readers {
        let (its_found, its_refused) = reader.await.unwrap();
        found += its_found;
        refused += its_refused;
    }
    println!("{found} scans, {refused} refused");
    assert!(found > 0 && refused > 0, "{found} scans, {refused} refused");
    delay(&mongo, &["find"], 0).await;
}

/// Returns the number of running finds in the store's database.
async fn running_finds(mongo: &Mongo, database: &str) -> usize {
    let client = Client::with_uri_str(mongo.uri()).await.unwrap();
    let namespace = format!("{database}.logs");
    let command = doc! { "currentOp": 1, "ns": namespace, "op": "query" };
    let response = client.database("admin").run_command(command).await.unwrap();
    response.get_array("inprog").unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn query_ends_in_mongodb_when_its_caller_is_gone() {
    let mongo = Mongo::start(StackOptions::default()).await.unwrap();
    let store = Store::at(mongo.uri());
    store.wait_for(|state| *state == PartState::Up).await;
    let repository = store.repository();
    // A document takes long to match: all filters but the last one find their value at the end of an
    // array of 100,000 objects.
    let members: Vec<_> =
        (0..100_015).map(|n: u32| json!({ "b": n.saturating_sub(100_000) })).collect();
    let metadata = json!({ "a": members }).to_string();
    for n in 0..60 {
        let entry = entry(n, "ada", "LOGIN", i64::from(n), &metadata);
        repository.store(&[entry]).await.unwrap();
    }
    let filter = |n: u32| MetadataFilter::new("a.b", &n.to_string()).unwrap();
    let scan = LogQuery { metadata: (1..17).map(filter).collect(), ..LogQuery::default() };
    let reading = {
        let repository = repository.clone();
        tokio::spawn(async move { repository.find(&scan, unlimited()).await })
    };
    eventually("the query to run", TIMEOUT, async || {
        ensure!(running_finds(&mongo, &store.database).await == 1);
        Ok(())
    })
    .await
    .unwrap();
    assert!(!reading.is_finished());
    reading.abort();
    eventually("the query to end", Duration::from_secs(3), async || {
        let running = running_finds(&mongo, &store.database).await;
        ensure!(running == 0, "{running} queries");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_primary_loses_nothing_and_does_not_block_ingest() {
    let mongo = with_fail_points().await;
    let kafka = Kafka::shared().await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    let server = ready(deployment.server("all")).await;
    delay(&mongo, &["insert", "update"], 2_000).await;
    let mut slowest = Duration::ZERO;
    for n in 0..200 {
        let event = json!({"userId": format!("u{n}"), "action": "A", "metadata": {"n": n}});
        let began = Instant::now();
        assert_eq!(post_log(&server, &event).await.0, 202);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // Longer than the time limits of the server's writes.
    mongo.pause(0).unwrap();
    let is_blocked = |scrape: &Scrape| scrape.get("eyego_worker_in_flight") > 0.0;
    scrape_until(&server, "records in flight to MongoDB", is_blocked).await;
    for n in 200..300 {
        let event = json!({"userId": format!("u{n}"), "action": "A", "metadata": {"n": n}});
        assert_eq!(post_log(&server, &event).await.0, 202);
    }
    mongo.resume(0).unwrap();
    delay(&mongo, &["insert", "update"], 0).await;
    logs(&server, "", 300).await;
    assert_eq!(get(&server, "/api/v1/dead-letters").await.1["results"], 0);
}
