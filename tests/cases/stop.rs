//! SIGTERM under load, as a deployment stops a process.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use stack::eventually;
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use stack::process::Signal;
use stack::server::{Server, ServerBuilder};

use crate::fixture::{Deployment, TIMEOUT, post, post_log, ready, stored};
use crate::metrics::{Scrape, scrape_until};
use crate::survival::each_acknowledged_event_survives;

/// The server's default shutdown timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(25);
/// A shutdown timeout that is shorter than the outage.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for the system to end the process, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// Stops the server, calls `repair`, and starts the server again. It must exit in time with code 0.
async fn stop_and_start(server: &Server, timeout: Duration, repair: impl FnOnce()) {
    let start = Instant::now();
    let status = server.terminate().await.unwrap();
    let elapsed = start.elapsed();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(elapsed < timeout + SLACK, "{elapsed:?}\n{}", server.log());
    repair();
    server.restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_stops_embedded() {
    let server = Server::builder().start().await.unwrap();
    each_acknowledged_event_survives(&server, 4, async |_| {
        stop_and_start(&server, DEFAULT_TIMEOUT, || {}).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_stops_on_kafka_and_mongodb() {
    let server = Deployment::shared().await.server("all").start().await.unwrap();
    each_acknowledged_event_survives(&server, 4, async |_| {
        stop_and_start(&server, DEFAULT_TIMEOUT, || {}).await;
    })
    .await;
}

fn with_short_timeout(deployment: &Deployment) -> ServerBuilder {
    let timeout = format!("{}s", SHORT_TIMEOUT.as_secs());
    deployment.server("all").env("EYEGO_SHUTDOWN_TIMEOUT", timeout)
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_keeps_its_timeout_while_kafka_hangs() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let server = with_short_timeout(&deployment).start().await.unwrap();
    each_acknowledged_event_survives(&server, 1, async |_| {
        kafka.pause(0).unwrap();
        let is_blocked = |scrape: &Scrape| scrape.get("eyego_ingest_in_flight") > 0.0;
        scrape_until(&server, "events in flight to Kafka", is_blocked).await;
        stop_and_start(&server, SHORT_TIMEOUT, || kafka.resume(0).unwrap()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_keeps_its_timeout_while_mongodb_hangs() {
    let kafka = Kafka::shared().await.unwrap();
    let mongo = Mongo::start(MongoOptions::default()).await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    let server = with_short_timeout(&deployment).start().await.unwrap();
    each_acknowledged_event_survives(&server, 1, async |_| {
        mongo.pause(0).unwrap();
        let is_blocked = |scrape: &Scrape| scrape.get("eyego_worker_in_flight") > 0.0;
        scrape_until(&server, "records in flight to MongoDB", is_blocked).await;
        stop_and_start(&server, SHORT_TIMEOUT, || mongo.resume(0).unwrap()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_works_and_stops_in_time_while_stderr_is_not_read() {
    let builder = Server::builder().unread_stderr().env("EYEGO_LOG", "trace");
    let server = ready(builder.env("EYEGO_SHUTDOWN_TIMEOUT", "5s")).await;
    // Different events under the same ids, each of which may cause a log line.
    for action in ["A", "B"] {
        let event = |n| json!({"id": format!("{n:024x}"), "userId": "u", "action": action});
        let batch: Vec<_> = (0..5000).map(event).collect();
        let (status, response) = post(&server, "/api/v1/logs/batch", &json!(batch)).await;
        assert_eq!(status, 202, "{response}");
    }
    let (_, response) = post_log(&server, &json!({"userId": "u", "action": "last"})).await;
    stored(&server, response["id"].as_str().unwrap()).await;
    let are_counted = |scrape: &Scrape| scrape.sum("eyego_worker_dead_letters_total") == 5000.0;
    scrape_until(&server, "conflicts", are_counted).await;
    assert!(Scrape::of(&server).await.get("eyego_log_lines_dropped_total") >= 0.0);
    let start = Instant::now();
    let status = server.terminate().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < SHORT_TIMEOUT + SLACK, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_start_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    // Opening a FIFO for writing blocks until there is a reader.
    let fifo = std::process::Command::new("mkfifo").arg(dir.path().join("lock")).status();
    assert!(fifo.unwrap().success());
    let server = Server::builder().data_dir(dir.path()).launch().await.unwrap();
    eventually("the server listens", TIMEOUT, async || {
        Ok(tokio::net::TcpStream::connect(server.address()).await.map(drop)?)
    })
    .await
    .unwrap();
    let start = Instant::now();
    let status = server.terminate().await.unwrap();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
    let log = server.log();
    assert!(log.contains("stopped before the start was complete"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hangup_does_not_end_the_server() {
    let server = ready(Server::builder()).await;
    server.signal(Signal::Hangup).unwrap();
    eventually("SIGHUP is logged", TIMEOUT, async || {
        ensure!(server.log().contains("received SIGHUP"), "{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
    let event = json!({"userId": "u", "action": "A"});
    assert_eq!(post_log(&server, &event).await.0, 202);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_of_open_files_is_raised() {
    let server = ready(Server::builder()).await;
    let limits = format!("/proc/{}/limits", server.pid().unwrap());
    let limits = std::fs::read_to_string(limits).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut limits = line.split_whitespace();
    assert_eq!(limits.next(), limits.next(), "{line}");
}
