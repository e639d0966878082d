//! The topic's size limit: the verdict on an event depends on that event alone.

use std::sync::Arc;

use serde_json::{Value, json};
use stack::kafka::{Kafka, KafkaOptions};
use stack::server::Server;
use tokio::task::JoinSet;

use super::admin::Operator;
use crate::fixture::{Deployment, get, logs, post, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

/// A limit that ten events exceed together.
const SMALL: &[(&str, &str)] = &[("max.message.bytes", "100000")];

fn event(n: usize, bytes: usize) -> Value {
    json!({"userId": format!("u{}", n % 50), "action": "A", "metadata": {"n": n, "x": "x".repeat(bytes)}})
}

/// Posts events of 10 KB concurrently, each alone. Each must be accepted.
async fn post_concurrently(server: &Arc<Server>, count: usize) {
    let mut posts = JoinSet::new();
    for n in 0..count {
        let server = Arc::clone(server);
        posts.spawn(async move { post_log(&server, &event(n, 10_000)).await });
    }
    let mut refused = Vec::new();
    while let Some(result) = posts.join_next().await {
        let (status, body) = result.unwrap();
        if status != 202 {
            refused.push((status, body));
        }
    }
    assert!(refused.is_empty(), "{} of {count} refused: {:?}", refused.len(), refused[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_within_the_limit_is_never_refused_because_of_its_neighbours() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    operator.create(&deployment.topic, 2, SMALL).await;
    let server = Arc::new(ready(deployment.server("all")).await);
    post_concurrently(&server, 600).await;
    let batch: Vec<_> = (0..50).map(|n| event(n, 10_000)).collect();
    let (status, body) = post(&server, "/api/v1/logs/batch", &json!({ "logs": batch })).await;
    assert_eq!((status, &body["accepted"]), (202, &json!(50)), "{body}");
    logs(&server, "", 650).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_event_that_is_too_large_alone_is_refused() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    operator.create(&deployment.topic, 1, SMALL).await;
    for properties in ["", "compression.type=lz4"] {
        let builder = deployment.server("api").env("EYEGO_KAFKA_PROPERTIES", properties);
        let server = ready(builder).await;
        // Text that does not compress.
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(200_000).collect();
        let large = json!({"userId": "u", "action": "A", "metadata": {"x": noise}});
        let (status, body) = post_log(&server, &large).await;
        assert_eq!(status, 413, "{body}");
        let mut batch: Vec<_> = (0..20).map(|n| event(n, 10_000)).collect();
        batch.insert(7, large);
        let (status, body) = post(&server, "/api/v1/logs/batch", &json!(batch)).await;
        assert_eq!((status, &body["accepted"]), (207, &json!(20)), "{properties}: {body}");
        let rejected = body["rejected"].as_array().unwrap();
        assert_eq!(rejected.len(), 1, "{body}");
        assert_eq!(rejected[0]["index"], 7);
        assert_eq!(rejected[0]["code"], "too_large");
        assert_eq!(rejected[0]["retryable"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_that_is_lowered_under_a_running_server_refuses_nothing_that_fits() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    operator.create(&deployment.topic, 1, &[]).await;
    let server = Arc::new(ready(deployment.server("all")).await);
    post_concurrently(&server, 100).await;
    operator.alter(&deployment.topic, &[("max.message.bytes", "30000")]).await;
    for _ in 0..3 {
        post_concurrently(&server, 100).await;
    }
    let reports = |scrape: &Scrape| {
        scrape.sum("eyego_queue_setting_problem{setting=\"max.message.bytes\"}") == 1.0
    };
    let scrape = scrape_until(&server, "the limit to be reported", reports).await;
    scrape.check_ingest();
    operator.alter(&deployment.topic, &[("max.message.bytes", "1000000")]).await;
    scrape_until(&server, "the limit to be fine again", |scrape| !reports(scrape)).await;
    post_concurrently(&server, 100).await;
    logs(&server, "", 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spooled_event_is_never_quarantined_because_of_its_neighbours() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    Operator::new(kafka.bootstrap()).create(&deployment.topic, 1, SMALL).await;
    let spool = tempfile::tempdir().unwrap();
    let server = ready(deployment.server("all").env("EYEGO_SPOOL_DIR", spool.path())).await;
    kafka.kill(0).unwrap();
    let batch: Vec<_> = (0..100).map(|n| event(n, 10_000)).collect();
    let (status, body) = post(&server, "/api/v1/logs/batch", &json!(batch)).await;
    assert_eq!(status, 202, "{body}");
    kafka.restart(0).await.unwrap();
    logs(&server, "", 100).await;
    let is_empty = |scrape: &Scrape| scrape.get("eyego_spool_records") == 0.0;
    let scrape = scrape_until(&server, "the spool to be empty", is_empty).await;
    assert_eq!(scrape.get("eyego_spool_quarantined_total"), 0.0);
    assert_eq!(get(&server, "/health/ready").await.0, 200);
}
