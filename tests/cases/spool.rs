//! The spool before a real Kafka that goes away.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::infrastructure::embedded::DataDir;
use eyego_log_server::infrastructure::queue::spool::SpooledQueue;
use eyego_log_server::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use serde_json::json;
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::Mongo;
use stack::server::{Server, ServerBuilder};
use tempfile::TempDir;

use crate::conformance::queue::QueueFixture;
use crate::conformance::{self, PATIENCE};
use crate::fixture::{get, logs, post};
use crate::metrics::{Scrape, eventually};
use crate::survival::each_acknowledged_event_survives;

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_keeps_its_promises_with_a_spool_before_it() {
    conformance::queue::run(4, || async {
        Box::new(SpooledFixture::new()) as Box<dyn QueueFixture>
    })
    .await;
}

/// The spool before an embedded queue, which can be had at once for each case.
struct SpooledFixture {
    dir: TempDir,
    queue: Arc<SpooledQueue>,
}

impl SpooledFixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = Self::open(&dir);
        Self { dir, queue }
    }

    fn open(dir: &TempDir) -> Arc<SpooledQueue> {
        let open = |name| {
            let options = SqliteQueueOptions { name, ..SqliteQueueOptions::default() };
            SqliteQueue::open(&DataDir::open(dir.path().join(name)).unwrap(), options).unwrap()
        };
        SpooledQueue::start(open("queue"), open("spool")).unwrap()
    }
}

#[async_trait]
impl QueueFixture for SpooledFixture {
    fn queue(&self) -> Arc<dyn LogQueue> {
        Arc::clone(&self.queue) as Arc<dyn LogQueue>
    }

    async fn restart(&mut self) {
        self.queue.close(std::time::Instant::now() + PATIENCE).await;
        self.queue = Self::open(&self.dir);
    }
}

async fn server(kafka: &Kafka, spool: &TempDir) -> ServerBuilder {
    Server::builder()
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_MONGODB_URI", Mongo::shared().await.unwrap().uri())
        .env("EYEGO_MONGODB_DATABASE", stack::unique("db"))
        .env("EYEGO_SPOOL_DIR", spool.path())
}

/// Waits until nothing is left in the spool; answers that scrape.
async fn drained(server: &Server) -> Scrape {
    eventually(server, |scrape| scrape.get("eyego_spool_records") == 0.0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_events_before_kafka_is_there() {
    let kafka = Kafka::prepare(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let server = server(&kafka, &spool).await.start().await.unwrap();
    // Ready: it can take events.
    server.wait_ready(PATIENCE).await.unwrap();
    let (_, health) = get(&server, "/health/ready").await;
    assert_eq!(health["parts"]["kafka"]["state"], "down", "{health}");
    assert_eq!(health["parts"]["spool"]["state"], "up", "{health}");
    for n in 0..20 {
        let event = json!({"userId": "early", "action": "A", "metadata": {"n": n}});
        assert_eq!(post(&server, &event).await.0, 202);
    }
    let scrape = Scrape::of(&server).await;
    scrape.check_ingest();
    assert_eq!(scrape.get("eyego_ingest_spooled_total"), 20.0);
    assert_eq!(scrape.get("eyego_spool_records"), 20.0);
    assert_eq!(scrape.get("eyego_spool_in_use"), 1.0);

    kafka.up().await.unwrap();
    logs(&server, "userId=early", 20).await;
    let scrape = drained(&server).await;
    assert_eq!(scrape.get("eyego_spool_moved_total"), 20.0);
    assert_eq!(scrape.get("eyego_spool_in_use"), 0.0);
    let event = json!({"userId": "late", "action": "A"});
    assert_eq!(post(&server, &event).await.0, 202);
    assert_eq!(Scrape::of(&server).await.get("eyego_ingest_queued_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_a_dead_broker_and_kills() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let server = server(&kafka, &spool).await.start().await.unwrap();
    each_acknowledged_event_survives(&server, 6, async |n| match n {
        1 => kafka.kill(0).unwrap(),
        3 => kafka.restart(0).await.unwrap(),
        // A broker that hangs: what it was given may get through after all.
        4 => kafka.pause(0).unwrap(),
        6 => kafka.resume(0).unwrap(),
        _ => {
            server.kill().unwrap();
            server.restart().await.unwrap();
        }
    })
    .await;
    let scrape = Scrape::of(&server).await;
    scrape.check_ingest();
    drained(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_takes_again_when_kafka_is_back() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let builder = server(&kafka, &spool).await.env("EYEGO_SPOOL_MAX_BYTES", "1 MiB");
    let server = builder.start().await.unwrap();
    server.wait_ready(PATIENCE).await.unwrap();
    kafka.kill(0).unwrap();
    // What repeats itself would be packed to nothing.
    let sqlite = rusqlite::Connection::open_in_memory().unwrap();
    let sql = "SELECT hex(randomblob(20000))";
    let text: String = sqlite.query_row(sql, [], |row| row.get(0)).unwrap();
    let mut taken = 0;
    loop {
        let event = json!({"userId": "full", "action": "A", "metadata": {"text": text}});
        match post(&server, &event).await {
            (202, _) => taken += 1,
            (503, answer) => {
                assert!(answer["id"].is_string(), "{answer}");
                assert!(answer["message"].as_str().unwrap().contains("full"), "{answer}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(taken > 20, "{taken}");
    let (status, health) = get(&server, "/health/ready").await;
    assert_eq!(status, 503, "{health}");
    assert_eq!(health["parts"]["spool"]["state"], "down", "{health}");

    kafka.restart(0).await.unwrap();
    logs(&server, "userId=full", taken).await;
    server.wait_ready(PATIENCE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let event = json!({"userId": "after", "action": "A"});
    assert_eq!(post(&server, &event).await.0, 202);
    logs(&server, "userId=after", 1).await;
}
