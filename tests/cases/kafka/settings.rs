//! The topic's settings: ours at creation, reported on an existing topic.

use anyhow::ensure;
use serde_json::json;
use stack::eventually;
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};

use super::admin::Operator;
use crate::fixture::{Deployment, TIMEOUT, get, logs, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

#[tokio::test(flavor = "multi_thread")]
async fn created_topic_does_not_inherit_settings_that_delete_events() {
    let options = KafkaOptions::default()
        .property("log.retention.bytes", "2000000")
        .property("log.retention.ms", "60000")
        .property("log.cleanup.policy", "compact")
        .property("message.max.bytes", "100000");
    let kafka = Kafka::start(options).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let server = ready(deployment.server("all")).await;
    let operator = Operator::new(kafka.bootstrap());
    for (setting, value) in [
        ("cleanup.policy", "delete"),
        ("retention.bytes", "-1"),
        ("retention.ms", "604800000"),
        ("max.message.bytes", "1048576"),
        ("unclean.leader.election.enable", "false"),
    ] {
        assert_eq!(operator.setting(&deployment.topic, setting).await, value, "{setting}");
    }
    eventually("no warning", TIMEOUT, async || {
        let (status, health) = get(&server, "/health/ready").await;
        ensure!(status == 200 && health["parts"]["kafka"]["state"] == "up", "{health}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_settings_of_an_existing_topic_are_reported() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    let settings = [
        ("cleanup.policy", "compact"),
        ("retention.bytes", "2000000"),
        ("max.message.bytes", "100000"),
    ];
    operator.create(&deployment.topic, 6, &settings).await;
    let server = ready(deployment.server("all")).await;
    eventually("the settings to be reported", TIMEOUT, async || {
        let (status, health) = get(&server, "/health/ready").await;
        let kafka = &health["parts"]["kafka"];
        ensure!(status == 200 && kafka["state"] == "warning", "{health}");
        for (setting, value) in settings {
            let expected = format!("topic {}: {setting} is {value}: ", deployment.topic);
            ensure!(kafka["reason"].as_str().unwrap().contains(&expected), "{health}");
        }
        Ok(())
    })
    .await
    .unwrap();
    let lines: Vec<_> =
        server.log().lines().filter(|line| line.contains("compact")).map(str::to_owned).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("retention.bytes"), "{lines:?}");

    // The time until Kafka deletes by size or key cannot be computed, so none is exported.
    assert_eq!(post_log(&server, &json!({"userId": "u", "action": "A"})).await.0, 202);
    logs(&server, "", 1).await;
    let is_settled = |scrape: &Scrape| scrape.partitions() == 6 && scrape.is_drained();
    let scrape = scrape_until(&server, "the worker to be drained", is_settled).await;
    for (setting, _) in settings {
        let series = format!("eyego_queue_setting_problem{{setting=\"{setting}\"}}");
        assert_eq!(scrape.get(&series), 1.0);
    }
    assert_eq!(scrape.sum("eyego_worker_retention_left_seconds"), 0.0);

    operator.alter(&deployment.topic, &[("cleanup.policy", "delete")]).await;
    let is_fine = |scrape: &Scrape| scrape.sum("eyego_queue_setting_problem") == 0.0;
    scrape_until(&server, "the settings to be fine", is_fine).await;
    let is_known = |scrape: &Scrape| scrape.sum("eyego_worker_retention_left_seconds") > 600_000.0;
    scrape_until(&server, "the time to retention to be known", is_known).await;
    let (_, health) = get(&server, "/health/ready").await;
    assert_eq!(health["parts"]["kafka"]["state"], "up", "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_the_group_committed_anything_are_counted() {
    let kafka = Kafka::shared().await.unwrap();
    let mongo = Mongo::prepare(MongoOptions::default()).await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    // The store is away from the start, so nothing can be stored.
    let server = deployment.server("all").start().await.unwrap();
    let has_joined = |scrape: &Scrape| scrape.partitions() == 6;
    scrape_until(&server, "the worker to join", has_joined).await;
    for n in 0..30 {
        let event = json!({"userId": "same", "action": "A", "metadata": {"n": n}});
        eventually("the event to be accepted", TIMEOUT, async || {
            let (status, body) = post_log(&server, &event).await;
            ensure!(status == 202, "{body}");
            Ok(())
        })
        .await
        .unwrap();
    }
    scrape_until(&server, "a lag of 30", |scrape| scrape.sum("eyego_worker_lag") == 30.0).await;
    server.kill().unwrap();
    deployment.delete_records_before(20).await;

    server.restart().await.unwrap();
    let is_counted = |scrape: &Scrape| scrape.get("eyego_worker_expired_total") == 20.0;
    scrape_until(&server, "20 records to be counted", is_counted).await;
    // All the others are deleted, too, while nothing can be delivered.
    deployment.delete_records_before(30).await;
    mongo.up().await.unwrap();
    let are_known = |scrape: &Scrape| {
        scrape.get("eyego_worker_expired_total") + scrape.get("eyego_worker_stored_total") == 30.0
    };
    scrape_until(&server, "all records to be stored or counted", are_known).await;
}
