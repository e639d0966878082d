//! The whole pipeline, from HTTP through the queue to the store, with the events of production: parts
//! that start late, poison messages, and a migration from the legacy service.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bson::doc;
use eyego_log_core::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use serde_json::{Value, json};
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::Server;
use stack::{eventually, eventually_blocking};

use crate::conformance::blocking;
use crate::fixture::{Deployment, TIMEOUT, get, logs, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

#[tokio::test(flavor = "multi_thread")]
async fn server_may_start_before_kafka_and_mongodb() {
    let kafka = Kafka::prepare(KafkaOptions::default()).await.unwrap();
    let mongo = Mongo::prepare(MongoOptions::default()).await.unwrap();
    let server = Server::builder()
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_MONGODB_URI", mongo.uri())
        .start()
        .await
        .unwrap();
    eventually("both parts to be down with a reason", TIMEOUT, async || {
        let (status, body) = get(&server, "/health/ready").await;
        assert_eq!(status, 503, "{body}");
        for part in ["kafka", "mongodb"] {
            let part = &body["parts"][part];
            ensure!(part["state"] == "down" && part["reason"].is_string(), "{body}");
        }
        Ok(())
    })
    .await
    .unwrap();
    let event = json!({"userId": "early", "action": "A", "id": "69682d8d81847b87ab93264b"});
    let began = Instant::now();
    let (status, body) = post_log(&server, &event).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["id"], "69682d8d81847b87ab93264b");
    assert!(began.elapsed() < Duration::from_secs(8));

    let (kafka_up, mongo_up) = tokio::join!(kafka.up(), mongo.up());
    kafka_up.unwrap();
    mongo_up.unwrap();
    server.wait_ready(TIMEOUT * 2).await.unwrap();
    assert_eq!(post_log(&server, &event).await.0, 202);
    assert_eq!(logs(&server, "userId=early", 1).await[0]["id"], event["id"]);

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let metadata = consumer.fetch_metadata(Some("logs-topic"), TIMEOUT).unwrap();
    assert_eq!(
        metadata.topics()[0].partitions().len(),
        3,
        "the server creates the topic, not the broker"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_message_becomes_a_dead_letter_and_its_neighbours_are_stored() {
    let deployment = Deployment::shared().await;
    let server = ready(deployment.server("all")).await;
    assert_eq!(post_log(&server, &json!({"userId": "same", "action": "BEFORE"})).await.0, 202);
    for poison in [
        &b"not JSON"[..],
        br#"{"action":"NOBODY","timestamp":"2026-01-01T00:00:00Z"}"#,
        br#"{"userId":"same","action":"A","metadata":{"n":1e999}}"#,
        b"\xff\xfe",
    ] {
        deployment.produce("same", poison).await;
    }
    let long = "x".repeat(300);
    let record =
        json!({"userId": long, "action": "LONG", "timestamp": "2099-01-01T00:00:00Z", "other": 1});
    deployment.produce("same", record.to_string().as_bytes()).await;
    deployment.produce_null("same").await;
    assert_eq!(post_log(&server, &json!({"userId": "same", "action": "AFTER"})).await.0, 202);

    let actions: Vec<_> =
        logs(&server, "", 3).await.iter().map(|log| log["action"].clone()).collect();
    assert_eq!(actions, ["LONG", "AFTER", "BEFORE"], "the limits of HTTP apply to HTTP only");
    let dead_letters = deployment.collection("dead-letters").await;
    eventually("four dead letters", TIMEOUT, async || {
        let count = dead_letters.count_documents(doc! {}).await?;
        ensure!(count >= 4, "{count}\n{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
    let unstorable = dead_letters.find_one(doc! {"code": "unstorable"}).await.unwrap().unwrap();
    assert!(unstorable.get_str("message").unwrap().contains("metadata.n"), "{unstorable}");
}

/// Returns a record as the API of the legacy service writes it.
fn legacy_record(n: i64) -> Vec<u8> {
    let timestamp = Timestamp::from_millis(1_768_435_085_442 + n).unwrap();
    json!({"id": null, "userId": format!("legacy-{}", n % 7), "action": "CLICK",
           "metadata": {"n": n}, "timestamp": timestamp})
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_of_the_legacy_service_is_migrated() {
    let deployment = Deployment::shared().await;
    // First only the API is replaced: it queues records that the legacy worker can read.
    let api = ready(deployment.server("api")).await;
    assert_eq!(get(&api, "/api/v1/nothing").await.0, 404);
    let event = json!({"userId": "new", "action": "A", "metadata": {"page": "home"}});
    let (status, body) = post_log(&api, &event).await;
    assert_eq!(status, 202);
    let record = first_record(&deployment).await;
    assert_eq!(record["id"], body["id"]);
    for field in ["userId", "action", "metadata"] {
        assert_eq!(record[field], event[field]);
    }
    assert!(record["timestamp"].is_string(), "{record}");

    // The legacy worker has stored one log; the new worker stores the rest.
    for n in 0..200 {
        deployment.produce(&format!("legacy-{}", n % 7), &legacy_record(n)).await;
    }
    let legacy_log = doc! {
        "userId": "old", "action": "CLICK", "metadata": {"page": "home"}, "__v": 0,
        "timestamp": bson::DateTime::from_millis(1_768_435_085_442),
        "createdAt": bson::DateTime::now(), "updatedAt": bson::DateTime::now(),
    };
    deployment.collection("logs").await.insert_one(legacy_log).await.unwrap();

    let worker = deployment.server("worker").start().await.unwrap();
    let stored = logs(&api, "", 202).await;
    assert_eq!(stored.iter().filter(|log| log["userId"] == "old").count(), 1);
    worker.terminate().await.unwrap();

    // A new group reads everything again, as after a reset of the offsets.
    let again = deployment.server_in_group("worker", "again").start().await.unwrap();
    let marker = json!({"userId": "marker", "action": "A"});
    for n in 0..50 {
        let marker = json!({"userId": format!("marker-{n}"), "action": "A"});
        assert_eq!(post_log(&api, &marker).await.0, 202);
    }
    assert_eq!(post_log(&api, &marker).await.0, 202);
    assert_eq!(logs(&api, "", 253).await.iter().filter(|log| log["userId"] == "new").count(), 1);
    let is_drained = |scrape: &Scrape| scrape.partitions() == 6 && scrape.is_drained();
    scrape_until(&again, "the new group to commit everything", is_drained).await;
    logs(&api, "", 253).await;
    assert_eq!(get(&again, "/health/ready").await.0, 200);
    assert_eq!(get(&again, "/api/v1/logs").await.0, 404, "a worker serves only its health");
}

/// Reads the first record of the topic with an independent consumer.
async fn first_record(deployment: &Deployment) -> Value {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &deployment.brokers)
        .set("group.id", stack::unique("reader"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&deployment.topic]).unwrap();
    let poll = || -> anyhow::Result<Value> {
        let message = consumer.poll(Duration::from_millis(100)).context("no record")??;
        Ok(serde_json::from_slice(message.payload().context("no value")?)?)
    };
    blocking(|| eventually_blocking("the first record", TIMEOUT, poll)).unwrap()
}
