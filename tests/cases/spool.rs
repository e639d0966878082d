//! The server spool in front of a Kafka that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_trait::async_trait;
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::infrastructure::queue::spool::SpooledQueue;
use eyego_log_server::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use serde_json::json;
use stack::eventually;
use stack::kafka::{Kafka, KafkaOptions};
use stack::server::{Server, ServerBuilder};
use tempfile::TempDir;

use crate::conformance;
use crate::conformance::queue::QueueFixture;
use crate::fixture::{Deployment, TIMEOUT, get, logs, open_data_dir, post_log, ready};
use crate::metrics::{Scrape, scrape_until};
use crate::survival::each_acknowledged_event_survives;

#[tokio::test(flavor = "multi_thread")]
async fn queue_with_a_spool_conforms_to_its_port() {
    conformance::queue::run(4, || async {
        Box::new(SpooledFixture::new()) as Box<dyn QueueFixture>
    })
    .await;
}

/// A spool in front of an embedded queue, which needs no set-up per case.
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
            SqliteQueue::open(&open_data_dir(&dir.path().join(name)), options).unwrap()
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
        self.queue.close(Instant::now() + TIMEOUT).await;
        self.queue = Self::open(&self.dir);
    }
}

async fn server(kafka: &Kafka, spool: &TempDir) -> ServerBuilder {
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    deployment.server("all").env("EYEGO_SPOOL_DIR", spool.path())
}

/// Waits until the spool is empty, and returns that scrape.
async fn drained(server: &Server) -> Scrape {
    scrape_until(server, "the spool to be empty", |scrape| scrape.get("eyego_spool_records") == 0.0)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn server_accepts_events_before_kafka_is_up() {
    let kafka = Kafka::prepare(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    // The server is ready because the spool accepts events.
    let server = ready(server(&kafka, &spool).await).await;
    let (_, health) = get(&server, "/health/ready").await;
    assert_eq!(health["parts"]["kafka"]["state"], "down", "{health}");
    assert_eq!(health["parts"]["spool"]["state"], "up", "{health}");
    for n in 0..20 {
        let event = json!({"userId": "early", "action": "A", "metadata": {"n": n}});
        assert_eq!(post_log(&server, &event).await.0, 202);
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
    assert_eq!(post_log(&server, &event).await.0, 202);
    assert_eq!(Scrape::of(&server).await.get("eyego_ingest_queued_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_a_dead_broker_and_kills_of_the_server() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let server = server(&kafka, &spool).await.start().await.unwrap();
    each_acknowledged_event_survives(&server, 6, async |n| match n {
        1 => kafka.kill(0).unwrap(),
        3 => kafka.restart(0).await.unwrap(),
        // Records that a frozen broker received may be stored after it resumes.
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
async fn full_spool_returns_503_until_kafka_is_back() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let builder = server(&kafka, &spool).await.env("EYEGO_SPOOL_MAX_BYTES", "1 MiB");
    let server = ready(builder).await;
    kafka.kill(0).unwrap();
    // Random text, because repetitive text would be compressed to almost nothing.
    let sqlite = rusqlite::Connection::open_in_memory().unwrap();
    let sql = "SELECT hex(randomblob(20000))";
    let text: String = sqlite.query_row(sql, [], |row| row.get(0)).unwrap();
    let mut accepted = 0;
    loop {
        let event = json!({"userId": "full", "action": "A", "metadata": {"text": text}});
        match post_log(&server, &event).await {
            (202, _) => accepted += 1,
            (503, body) => {
                assert!(body["id"].is_string(), "{body}");
                assert!(body["message"].as_str().unwrap().contains("full"), "{body}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(accepted > 20, "{accepted}");
    let (status, health) = get(&server, "/health/ready").await;
    assert_eq!(status, 503, "{health}");
    assert_eq!(health["parts"]["spool"]["state"], "down", "{health}");

    kafka.restart(0).await.unwrap();
    logs(&server, "userId=full", accepted).await;
    server.wait_ready(TIMEOUT).await.unwrap();
    let event = json!({"id": "69682d8d81847b87ab93264b", "userId": "after", "action": "A"});
    eventually("an event to be accepted", TIMEOUT, async || {
        let (status, body) = post_log(&server, &event).await;
        ensure!(status == 202, "{status}: {body}");
        Ok(())
    })
    .await
    .unwrap();
    logs(&server, "userId=after", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_spool_is_down_and_accepts_nothing() {
    let kafka = Kafka::prepare(KafkaOptions::default()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let server = ready(server(&kafka, &spool).await).await;
    let event = json!({"userId": "ada", "action": "A"});
    assert_eq!(post_log(&server, &event).await.0, 202);
    std::fs::remove_dir_all(spool.path()).unwrap();
    eventually("events to be refused", Duration::from_secs(10), async || {
        let (status, body) = post_log(&server, &event).await;
        let (ready, health) = get(&server, "/health/ready").await;
        ensure!(status == 503 && ready == 503, "{status} {body}, {ready} {health}");
        let reason = health["parts"]["spool"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("spool.db was deleted"), "{health}");
        Ok(())
    })
    .await
    .unwrap();
}
