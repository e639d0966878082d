//! The whole way, from HTTP through the queue into the store, with what happens to it in
//! production: kills, parts that come late, poison, a deployment of the seed that is taken over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use eyego_log_core::{LogId, LogIdGenerator, Timestamp};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::{Value, json};
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::{Server, ServerBuilder};

use crate::conformance::PATIENCE;

/// A server on the shared Kafka and MongoDB, with names of its own.
pub(crate) struct Names {
    pub(crate) brokers: String,
    pub(crate) uri: String,
    pub(crate) topic: String,
    pub(crate) database: String,
}

impl Names {
    pub(crate) async fn new() -> Self {
        Self {
            brokers: Kafka::shared().await.unwrap().bootstrap().to_owned(),
            uri: Mongo::shared().await.unwrap().uri().to_owned(),
            topic: stack::unique("topic"),
            database: stack::unique("db"),
        }
    }

    pub(crate) fn server(&self, role: &str, group: &str) -> ServerBuilder {
        Server::builder()
            .env("EYEGO_ROLE", role)
            .env("EYEGO_KAFKA_BROKERS", &self.brokers)
            .env("EYEGO_KAFKA_TOPIC", &self.topic)
            .env("EYEGO_KAFKA_GROUP", format!("{}-{group}", self.topic))
            .env("EYEGO_MONGODB_URI", &self.uri)
            .env("EYEGO_MONGODB_DATABASE", &self.database)
    }

    pub(crate) fn producer(&self) -> FutureProducer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap()
    }

    pub(crate) async fn produce(&self, key: &str, value: &[u8]) {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        self.producer().send(record, PATIENCE).await.unwrap();
    }

    /// Deletes the records of each partition that has so many, as retention would.
    pub(crate) async fn delete_records_before(&self, offset: i64) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.topic), PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let (_, end) =
                consumer.fetch_watermarks(&self.topic, partition.id(), PATIENCE).unwrap();
            if end >= offset {
                let before = rdkafka::Offset::Offset(offset);
                list.add_partition_offset(&self.topic, partition.id(), before).unwrap();
            }
        }
        assert!(list.count() > 0, "no partition has so many records");
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    pub(crate) async fn database(&self) -> mongodb::Database {
        mongodb::Client::with_uri_str(&self.uri).await.unwrap().database(&self.database)
    }

    async fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.database().await.collection(name)
    }
}

pub(crate) async fn get(server: &Server, path: &str) -> (u16, Value) {
    let url = format!("{}{path}", server.base_url());
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub(crate) async fn post(server: &Server, body: &Value) -> (u16, Value) {
    send(server, "/api/v1/logs", body).await
}

pub(crate) async fn send(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}{path}", server.base_url());
    let answer = reqwest::Client::new().post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Waits until the store shows this many logs to `query`, and answers them, newest first.
pub(crate) async fn logs(server: &Server, query: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        let (status, page) = get(server, &format!("/api/v1/logs?limit=1000&{query}")).await;
        let logs = page["data"].as_array().cloned().unwrap_or_default();
        if status == 200 && logs.len() >= count {
            assert_eq!(logs.len(), count, "{query}");
            return logs;
        }
        assert!(Instant::now() < deadline, "{} of {count}: {page}\n{}", logs.len(), server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

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

/// Sends events until told to stop, each with an id of its own and again until it is
/// acknowledged; answers what was acknowledged.
async fn caller(
    base_url: String,
    caller: u64,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> HashMap<LogId, u64> {
    let client = reqwest::Client::new();
    let ids = LogIdGenerator::new();
    let mut mine = HashMap::new();
    for round in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let now = Timestamp::from(std::time::SystemTime::now());
        let batch: Vec<_> =
            (0..50).map(|n| (ids.mint(now), caller << 40 | round << 8 | n)).collect();
        let lines: Vec<_> = batch
            .iter()
            .map(|(id, n)| {
                let user = format!("user-{}", n % 97);
                json!({"id": id, "userId": user, "action": "A", "metadata": {"n": n}}).to_string()
            })
            .collect();
        loop {
            let answer = client
                .post(format!("{base_url}/api/v1/logs/batch"))
                .header("content-type", "application/x-ndjson")
                .body(lines.join("\n"))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status() == 202) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        acknowledged.fetch_add(batch.len() as u64, Ordering::Relaxed);
        mine.extend(batch);
    }
    mine
}

/// Kills the server five times while callers send, and then looks for each acknowledged event:
/// at least 20,000, or as many as `EYEGO_TEST_EVENTS` says.
async fn each_acknowledged_event_survives_kills(server: Server) {
    each_acknowledged_event_survives(&server, 5, async |_| {
        server.kill().unwrap();
        server.restart().await.unwrap();
    })
    .await;
}

/// Loads the server, and meanwhile calls `disturb` so many times; then each acknowledged event
/// must be in the store, once, and nothing else.
pub(crate) async fn each_acknowledged_event_survives(
    server: &Server,
    disturbances: u64,
    disturb: impl AsyncFn(u64),
) {
    let events = std::env::var("EYEGO_TEST_EVENTS").ok().map_or(20_000, |n| n.parse().unwrap());
    server.wait_ready(PATIENCE).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let (over, count) = (Arc::clone(&is_over), Arc::clone(&acknowledged));
            tokio::spawn(caller(server.base_url(), n, over, count))
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(300);
    let reach = async |count: u64| {
        while acknowledged.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "too slow\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for n in 1..=disturbances {
        reach(events * n / (disturbances + 1)).await;
        disturb(n).await;
    }
    reach(events).await;
    is_over.store(true, Ordering::Relaxed);
    let mut expected = HashMap::new();
    for caller in callers {
        expected.extend(caller.await.unwrap());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stored = all(server).await;
        let missing = expected.keys().filter(|id| !stored.contains_key(id)).count();
        if missing == 0 {
            for (id, n) in &stored {
                // Callers sent until each was acknowledged: nothing else may be there.
                assert_eq!(expected.get(id), Some(n), "{id}");
            }
            return;
        }
        assert!(Instant::now() < deadline, "{missing} of {} are lost", expected.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every log in the store, page by page; none twice.
async fn all(server: &Server) -> HashMap<LogId, u64> {
    let mut stored = HashMap::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = get(server, &format!("/api/v1/logs?limit=1000{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        for log in page["data"].as_array().unwrap() {
            let id = log["id"].as_str().unwrap().parse().unwrap();
            let doubled = stored.insert(id, log["metadata"]["n"].as_u64().unwrap());
            assert_eq!(doubled, None, "{id} is there twice");
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return stored,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_kills_embedded() {
    let server = Server::builder().start().await.unwrap();
    each_acknowledged_event_survives_kills(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_kills_on_kafka_and_mongodb() {
    let server = Names::new().await.server("all", "g").start().await.unwrap();
    each_acknowledged_event_survives_kills(server).await;
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
