//! The whole way, from HTTP through the queue into the store, with what happens to it in
//! production: parts that come late, poison, a deployment of the seed that is taken over.

use std::time::{Duration, Instant};

use bson::doc;
use eyego_log_core::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::Server;

use crate::conformance::PATIENCE;
use crate::fixture::{Names, get, logs, post};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_start_before_its_parts() {
    let kafka = Kafka::prepare(KafkaOptions::default()).await.unwrap();
    let mongo = Mongo::prepare(MongoOptions::default()).await.unwrap();
    let server = Server::builder()
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_MONGODB_URI", mongo.uri())
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (status, body) = get(&server, "/health/ready").await;
    assert_eq!(status, 503, "{body}");
    for part in ["kafka", "mongodb"] {
        assert_eq!(body["parts"][part]["state"], "down", "{body}");
        assert!(body["parts"][part]["reason"].is_string(), "{body}");
    }
    let event = json!({"userId": "early", "action": "A", "id": "69682d8d81847b87ab93264b"});
    let asked = Instant::now();
    let (status, body) = post(&server, &event).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["id"], "69682d8d81847b87ab93264b");
    assert!(asked.elapsed() < Duration::from_secs(8));

    let (kafka_up, mongo_up) = tokio::join!(kafka.up(), mongo.up());
    kafka_up.unwrap();
    mongo_up.unwrap();
    server.wait_ready(PATIENCE * 2).await.unwrap();
    assert_eq!(post(&server, &event).await.0, 202);
    assert_eq!(logs(&server, "userId=early", 1).await[0]["id"], event["id"]);

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let metadata = consumer.fetch_metadata(Some("logs-topic"), PATIENCE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 6, "created by us, not by the broker");
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_becomes_a_dead_letter_and_its_neighbours_are_stored() {
    let names = Names::new().await;
    let server = names.server("all", "g").start().await.unwrap();
    server.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(post(&server, &json!({"userId": "same", "action": "BEFORE"})).await.0, 202);
    for poison in [
        &b"not JSON"[..],
        br#"{"action":"NOBODY","timestamp":"2026-01-01T00:00:00Z"}"#,
        br#"{"userId":"same","action":"A","metadata":{"n":1e999}}"#,
        b"\xff\xfe",
    ] {
        names.produce("same", poison).await;
    }
    let long = "x".repeat(300);
    let record =
        json!({"userId": long, "action": "LONG", "timestamp": "2099-01-01T00:00:00Z", "other": 1});
    names.produce("same", record.to_string().as_bytes()).await;
    let tombstone: FutureRecord<'_, str, [u8]> = FutureRecord::to(&names.topic).key("same");
    names.producer().send(tombstone, PATIENCE).await.unwrap();
    assert_eq!(post(&server, &json!({"userId": "same", "action": "AFTER"})).await.0, 202);

    let actions: Vec<_> =
        logs(&server, "", 3).await.iter().map(|log| log["action"].clone()).collect();
    assert_eq!(actions, ["LONG", "AFTER", "BEFORE"], "HTTP's limits bind HTTP only");
    let letters = names.collection("dead-letters").await;
    let deadline = Instant::now() + PATIENCE;
    while letters.count_documents(doc! {}).await.unwrap() < 4 {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let letter = letters.find_one(doc! {"code": "unstorable"}).await.unwrap().unwrap();
    assert!(letter.get_str("message").unwrap().contains("metadata.n"), "{letter}");
}

/// A record as the seed's API writes it.
fn seeds_record(n: i64) -> Vec<u8> {
    let timestamp = Timestamp::from_millis(1_768_435_085_442 + n).unwrap();
    json!({"id": null, "userId": format!("seed-{}", n % 7), "action": "CLICK",
           "metadata": {"n": n}, "timestamp": timestamp})
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_deployment_is_taken_over() {
    let names = Names::new().await;
    // First our api beside the seed: it queues what the seed's worker can read.
    let api = names.server("api", "g").start().await.unwrap();
    api.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(get(&api, "/api/v1/nothing").await.0, 404);
    let event = json!({"userId": "ours", "action": "A", "metadata": {"page": "home"}});
    let (status, answer) = post(&api, &event).await;
    assert_eq!(status, 202);
    let seen = first_record(&names).await;
    assert_eq!(seen["id"], answer["id"]);
    for field in ["userId", "action", "metadata"] {
        assert_eq!(seen[field], event[field]);
    }
    assert!(seen["timestamp"].is_string(), "{seen}");

    // The seed's worker stored some, and committed; the rest is for ours.
    for n in 0..200 {
        names.produce(&format!("seed-{}", n % 7), &seeds_record(n)).await;
    }
    let by_the_seed = doc! {
        "userId": "old", "action": "CLICK", "metadata": {"page": "home"}, "__v": 0,
        "timestamp": bson::DateTime::from_millis(1_768_435_085_442),
        "createdAt": bson::DateTime::now(), "updatedAt": bson::DateTime::now(),
    };
    names.collection("logs").await.insert_one(by_the_seed).await.unwrap();

    let worker = names.server("worker", "g").start().await.unwrap();
    let stored = logs(&api, "", 202).await;
    assert_eq!(stored.iter().filter(|log| log["userId"] == "old").count(), 1);
    worker.terminate().await.unwrap();

    // Everything once more, as after a reset of the group.
    let again = names.server("worker", "again").start().await.unwrap();
    let marker = json!({"userId": "marker", "action": "A"});
    for n in 0..50 {
        let marker = json!({"userId": format!("marker-{n}"), "action": "A"});
        assert_eq!(post(&api, &marker).await.0, 202);
    }
    assert_eq!(post(&api, &marker).await.0, 202);
    assert_eq!(logs(&api, "", 253).await.iter().filter(|log| log["userId"] == "ours").count(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    logs(&api, "", 253).await;
    assert_eq!(get(&again, "/health/ready").await.0, 200);
    assert_eq!(get(&again, "/api/v1/logs").await.0, 404, "a worker serves its health only");
}

/// The first record of the topic, as any consumer of it reads it.
async fn first_record(names: &Names) -> Value {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &names.brokers)
        .set("group.id", stack::unique("reader"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&names.topic]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            return serde_json::from_slice(message.payload().unwrap()).unwrap();
        }
    }
    panic!("no record came");
}
