//! Readiness reports the latest outcomes, with Kafka's reason and the host or topic.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use stack::eventually;
use stack::kafka::{Kafka, KafkaOptions};
use stack::server::Server;

use super::admin::Operator;
use crate::fixture::{Deployment, TIMEOUT, get, logged, post_log, ready};

/// Readiness must notice a failure within this time.
const NOTICED: Duration = Duration::from_secs(10);

fn event() -> Value {
    json!({"userId": "u", "action": "A"})
}

/// Waits until Kafka is reported as down for a reason that contains each of `words`.
pub(super) async fn down(server: &Server, timeout: Duration, words: &[&str]) {
    eventually("Kafka to be down", timeout, async || {
        let (status, health) = get(server, "/health/ready").await;
        let kafka = &health["parts"]["kafka"];
        ensure!(status == 503 && kafka["state"] == "down", "{health}\n{}", server.log());
        let reason = kafka["reason"].as_str().unwrap();
        ensure!(words.iter().all(|word| reason.contains(word)), "{health}\n{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_in_sync_replicas_are_reported_with_the_topic() {
    let options = KafkaOptions::three().property("broker.session.timeout.ms", "3000");
    let kafka = Kafka::start(options).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let operator = Operator::new(kafka.bootstrap());
    operator.create(&deployment.topic, 3, &[("min.insync.replicas", "3")]).await;
    let server = ready(deployment.server("api")).await;
    assert_eq!(post_log(&server, &event()).await.0, 202);
    kafka.kill(2).unwrap();
    // Kafka itself first has to notice.
    let words = [deployment.topic.as_str(), "NOT_ENOUGH_REPLICAS", "min.insync.replicas is 3"];
    down(&server, TIMEOUT + NOTICED, &words).await;
    let (status, body) = post_log(&server, &event()).await;
    assert_eq!(status, 503, "{body}");
    let event = event();
    for _ in 0..2 {
        let posts = (0..10).map(|_| post_log(&server, &event));
        for (status, body) in futures_util::future::join_all(posts).await {
            assert_eq!(status, 503, "{body}");
        }
    }
    let log = logged(&server, "did not acknowledge events").await;
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains("did not acknowledge events")).collect();
    assert!((1..=3).contains(&warnings.len()), "{warnings:?}");
    let is_complete = |line: &&str| {
        line.contains("WARN") && line.contains("count=") && line.contains("NOT_ENOUGH_REPLICAS")
    };
    assert!(warnings.iter().all(is_complete), "{warnings:?}");

    kafka.restart(2).await.unwrap();
    eventually("an event to be accepted", TIMEOUT * 2, async || {
        let (status, body) = post_log(&server, &event).await;
        ensure!(status == 202, "{body}");
        Ok(())
    })
    .await
    .unwrap();
    eventually("the server to be ready", NOTICED, async || {
        let (status, health) = get(&server, "/health/ready").await;
        ensure!(status == 200, "{health}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_server_is_ready_again_when_the_brokers_can_be_reached_again() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let server = ready(deployment.server("api")).await;
    assert_eq!(post_log(&server, &event()).await.0, 202);
    kafka.pause(0).unwrap();
    // The delivery fails before any other check can.
    assert_eq!(post_log(&server, &event()).await.0, 503);
    down(&server, Duration::from_secs(1), &["Kafka at", kafka.bootstrap()]).await;
    kafka.resume(0).unwrap();
    // A load balancer sends no event to a server that is not ready.
    eventually("the server to be ready", TIMEOUT * 2, async || {
        let (status, health) = get(&server, "/health/ready").await;
        ensure!(status == 200 && health["parts"]["kafka"]["state"] == "warning", "{health}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(post_log(&server, &event()).await.0, 202);
    let (_, health) = get(&server, "/health/ready").await;
    assert_eq!(health["parts"]["kafka"]["state"], "up", "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn advertised_host_that_does_not_resolve_is_named() {
    let kafka = Kafka::prepare(KafkaOptions::default()).await.unwrap();
    let address = kafka.bootstrap().to_owned();
    drop(kafka);
    let port = address.rsplit(':').next().unwrap();
    let advertised = format!("PLAINTEXT://broker-x.invalid:{port}");
    let options = KafkaOptions::default().property("advertised.listeners", &advertised);
    let kafka = Kafka::start(options).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let server = deployment.server("all").start().await.unwrap();
    // The topic cannot be created, because only the advertised address serves that.
    down(&server, TIMEOUT, &["esolve", "broker-x.invalid"]).await;
    let operator = Operator::new(kafka.bootstrap());
    eventually("the broker to create the topic", TIMEOUT, async || {
        operator.auto_create(&deployment.topic)
    })
    .await
    .unwrap();
    eventually("an attempt to deliver", TIMEOUT, async || {
        let (status, body) = post_log(&server, &event()).await;
        ensure!(status == 503, "{status}: {body}");
        let log = server.log();
        ensure!(log.contains("did not acknowledge events"), "{log}");
        Ok(())
    })
    .await
    .unwrap();
    down(&server, NOTICED, &["esolve", "broker-x.invalid"]).await;
}
