//! Events that lose against another under the same id become dead letters.

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};
use stack::server::Server;

use super::{replay, replayed};
use crate::conformance::id;
use crate::fixture::{Deployment, get, logged, logs, post, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

/// Waits until the worker has settled this many records.
async fn settled(server: &Server, records: f64) {
    let is_settled = |scrape: &Scrape| {
        scrape.get("eyego_worker_consumed_total") == records
            && scrape.get("eyego_worker_in_flight") == 0.0
    };
    scrape_until(server, "all records to be settled", is_settled).await;
}

async fn conflicts(server: &Server) -> Vec<Value> {
    let (status, page) = get(server, "/api/v1/dead-letters?code=id_conflict&limit=1000").await;
    assert_eq!(status, 200, "{page}");
    page["data"].as_array().unwrap().clone()
}

/// Events that lose against another under the same id.
async fn conflicting_events_become_dead_letters(server: &Server) {
    let event = |action: &str| json!({"id": id(1), "userId": "ada", "action": action});
    let dated = |time: &str| {
        json!({"id": id(2), "userId": "ada", "action": "A", "timestamp": time,
               "metadata": {"a": 1, "b": [1.0]}})
    };
    // The first of each id is stored, and its retries are duplicates.
    let retry = json!({"id": id(2), "userId": "ada", "action": "A",
                       "timestamp": "2026-01-14T23:58:05.44200Z",
                       "metadata": {"b": [1.0], "a": 1}});
    for event in [event("A"), event("A"), dated("2026-01-14T23:58:05.442Z"), retry] {
        assert_eq!(post_log(server, &event).await.0, 202);
        // A retry without a timestamp has another time of receipt.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    settled(server, 4.0).await;
    assert_eq!(conflicts(server).await, [] as [Value; 0]);

    // Different events, each sent twice.
    for event in [event("B"), event("C"), dated("2026-01-14T23:58:05.443Z")] {
        for _ in 0..2 {
            assert_eq!(post_log(server, &event).await.0, 202);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    settled(server, 10.0).await;
    let dead_letters = conflicts(server).await;
    assert_eq!(dead_letters.len(), 3, "{dead_letters:?}");
    let mut kept = Vec::new();
    for dead_letter in &dead_letters {
        let message = dead_letter["message"].as_str().unwrap();
        assert!(message.contains("another event is stored under the id"), "{message}");
        let path = format!("/api/v1/dead-letters/{}", dead_letter["id"].as_str().unwrap());
        let (_, shown) = get(server, &path).await;
        let raw: Value = serde_json::from_str(shown["data"]["raw"].as_str().unwrap()).unwrap();
        kept.push(format!("{} {}", raw["id"].as_str().unwrap(), raw["action"].as_str().unwrap()));
    }
    kept.sort();
    let expected = [(1, "B"), (1, "C"), (2, "A")].map(|(n, a)| format!("{} {a}", id(n)));
    assert_eq!(kept, expected);
    // The first conflict has the id of its event.
    let (_, first) = get(server, &format!("/api/v1/dead-letters/{}", id(1))).await;
    assert_eq!(first["data"]["code"], "id_conflict", "{first}");

    // Replaying fails as long as the other event is stored.
    let (status, body) = replay(server, json!({"code": "id_conflict"})).await;
    assert_eq!((status, body), (200, replayed(0, 3, 3)));
    assert_eq!(conflicts(server).await.len(), 3);
    let logs = logs(server, "userId=ada", 2).await;
    assert!(logs.iter().all(|log| log["action"] == "A"), "the first events are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_events_become_dead_letters_embedded() {
    conflicting_events_become_dead_letters(&ready(Server::builder()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_events_become_dead_letters_on_kafka_and_mongodb() {
    let deployment = Deployment::shared().await;
    let server = ready(deployment.server("all")).await;
    conflicting_events_become_dead_letters(&server).await;
    // Once the other event is gone, a replay succeeds.
    let collection = deployment.collection("logs").await;
    let event = bson::oid::ObjectId::from_bytes(*id(2).as_bytes());
    collection.delete_one(doc! { "_id": event }).await.unwrap();
    let (status, body) = replay(&server, json!({"id": id(2)})).await;
    assert_eq!((status, body), (200, replayed(1, 0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_conflicts_are_a_few_log_lines() {
    let server = ready(Server::builder()).await;
    for action in ["A", "B"] {
        let event = |n: u32| json!({"id": id(n), "userId": "ada", "action": action});
        let batch: Vec<_> = (0..1000).map(event).collect();
        let (status, body) = post(&server, "/api/v1/logs/batch", &json!(batch)).await;
        assert_eq!(status, 202, "{body}");
    }
    settled(&server, 2000.0).await;
    assert_eq!(conflicts(&server).await.len(), 1000);
    let log = logged(&server, "id_conflict").await;
    let lines = log.lines().filter(|line| line.contains("id_conflict")).count();
    assert!((1..=4).contains(&lines), "{lines} lines:\n{log}");
}
