//! Lag comes from the broker: while the worker is paused, and for partitions that nobody owns.

use std::time::Duration;

use serde_json::json;
use stack::kafka::Kafka;
use stack::mongodb::{Mongo, MongoOptions};

use super::{incompatible_member, options_for};
use crate::conformance::blocking;
use crate::fixture::{Deployment, post, ready};
use crate::metrics::scrape_until;

#[tokio::test(flavor = "multi_thread")]
async fn lag_grows_while_the_store_is_away() {
    let kafka = Kafka::shared().await.unwrap();
    let mongo = Mongo::prepare(MongoOptions::default()).await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    let server = deployment.server("all").start().await.unwrap();
    scrape_until(&server, "the worker to join", |scrape| scrape.partitions() == 6).await;
    // More than the bulks in flight hold, so that the worker pauses.
    for (sent, total) in [(4, 8_000.0), (2, 12_000.0), (1, 14_000.0)] {
        for n in 0..sent {
            let event = |m| json!({"userId": format!("u{m}"), "action": "A", "metadata": {"n": n}});
            let batch: Vec<_> = (0..2_000).map(event).collect();
            let (status, body) = post(&server, "/api/v1/logs/batch", &json!(batch)).await;
            assert_eq!(status, 202, "{body}");
        }
        let what = format!("a lag of {total}");
        scrape_until(&server, &what, |scrape| scrape.sum("eyego_worker_lag") == total).await;
    }
    mongo.up().await.unwrap();
    scrape_until(&server, "no lag", |scrape| scrape.sum("eyego_worker_lag") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_no_member_owns_have_a_lag() {
    let deployment = Deployment::shared().await;
    let api = ready(deployment.server("api")).await;
    // A member with another assignor, of another topic, keeps the worker out of the group.
    let other = stack::unique("topic");
    super::admin::Operator::new(&deployment.brokers).create(&other, 1, &[]).await;
    let options = options_for(&deployment.brokers, &other, &deployment.group("g"));
    let (stop, is_stopped) = std::sync::mpsc::channel::<()>();
    let member = std::thread::spawn(move || {
        let consumer = incompatible_member(&options);
        while is_stopped.try_recv().is_err() {
            let _ = consumer.poll(Duration::from_millis(100));
        }
    });
    let batch: Vec<_> =
        (0..60).map(|n| json!({"userId": format!("u{n}"), "action": "A"})).collect();
    let (status, body) = post(&api, "/api/v1/logs/batch", &json!(batch)).await;
    assert_eq!(status, 202, "{body}");
    let worker = deployment.server("worker").start().await.unwrap();
    let is_seen = |scrape: &crate::metrics::Scrape| {
        scrape.partitions() == 6 && scrape.sum("eyego_worker_lag") == 60.0
    };
    scrape_until(&worker, "the lag of all partitions", is_seen).await;
    stop.send(()).unwrap();
    blocking(|| member.join()).unwrap();
    scrape_until(&worker, "no lag", |scrape| scrape.sum("eyego_worker_lag") == 0.0).await;
}
