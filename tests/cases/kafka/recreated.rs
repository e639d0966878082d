//! A topic that is deleted, created again, or given more partitions under running servers.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use stack::eventually;
use stack::kafka::Kafka;
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::Server;

use super::admin::Operator;
use crate::fixture::{Deployment, TIMEOUT, get, logs, post, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

/// The time in which a change of the topic must be noticed.
const NOTICED: Duration = Duration::from_secs(60);

/// Posts events until each is accepted.
async fn post_all(server: &Server, user: &str, count: usize) {
    for n in 0..count {
        let event = json!({"userId": format!("{user}-{n}"), "action": user});
        eventually("an event to be accepted", NOTICED, async || {
            let (status, body) = post_log(server, &event).await;
            ensure!(status == 202, "{status} {body}\n{}", server.log());
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_topic_is_created_with_our_settings_and_used_again() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    let server = ready(deployment.server("all")).await;
    post_all(&server, "BEFORE", 60).await;
    logs(&server, "action=BEFORE", 60).await;
    for round in ["FIRST", "SECOND"] {
        operator.delete(&deployment.topic).await;
        eventually("the topic to be created again", NOTICED, async || {
            let partitions = operator.partitions(&deployment.topic);
            ensure!(partitions == 6, "{partitions} partitions\n{}", server.log());
            Ok(())
        })
        .await
        .unwrap();
        post_all(&server, round, 60).await;
        logs(&server, &format!("action={round}"), 60).await;
        let is_drained = |scrape: &Scrape| scrape.partitions() == 6 && scrape.is_drained();
        scrape_until(&server, "no lag", is_drained).await;
        assert_eq!(operator.setting(&deployment.topic, "retention.bytes").await, "-1");
        server.wait_ready(TIMEOUT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_recreated_topic_are_not_hidden_by_old_offsets() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    operator.create(&deployment.topic, 1, &[]).await;
    let worker = deployment.server("worker").start().await.unwrap();
    let record = |n: usize| {
        format!(
            r#"{{"userId":"u","action":"A","timestamp":"2026-01-01T00:00:00Z","metadata":{{"n":{n}}}}}"#
        )
    };
    for n in 0..30 {
        deployment.produce("u", record(n).as_bytes()).await;
    }
    let stored = async |count: f64| {
        let is_stored = |scrape: &Scrape| {
            scrape.get("eyego_worker_stored_total") == count
                && scrape.partitions() == 1
                && scrape.is_drained()
        };
        scrape_until(&worker, &format!("{count} logs"), is_stored).await
    };
    stored(30.0).await;
    // At once more records than before: the old position is in the middle of the new topic.
    operator.delete(&deployment.topic).await;
    operator.create(&deployment.topic, 1, &[]).await;
    let producer = deployment.producer();
    for n in 30..130 {
        let (topic, record) = (&deployment.topic, record(n));
        eventually("the record to be sent", TIMEOUT, async || {
            let record = rdkafka::producer::FutureRecord::to(topic).key("u").payload(&record);
            producer.send(record, TIMEOUT).await.map(drop).map_err(|(error, _)| error.into())
        })
        .await
        .unwrap();
    }
    let scrape = stored(130.0).await;
    assert_eq!(scrape.get("eyego_worker_expired_total"), 0.0, "all were stored before");
    assert_eq!(get(&worker, "/health/ready").await.0, 200);

    // The committed offset belongs to the new topic: a restart repeats nothing.
    assert!(worker.terminate().await.unwrap().success());
    worker.restart().await.unwrap();
    deployment.produce("u", record(130).as_bytes()).await;
    let is_stored = |scrape: &Scrape| scrape.get("eyego_worker_stored_total") == 1.0;
    let scrape = scrape_until(&worker, "one more log", is_stored).await;
    assert_eq!(scrape.get("eyego_worker_consumed_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_consumed_within_a_minute() {
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    operator.create(&deployment.topic, 2, &[]).await;
    let server = ready(deployment.server("all")).await;
    post_all(&server, "BEFORE", 20).await;
    logs(&server, "action=BEFORE", 20).await;
    operator.add_partitions(&deployment.topic, 5).await;
    eventually("the new partitions to be owned", NOTICED, async || {
        let partitions = Scrape::of(&server).await.partitions();
        ensure!(partitions == 5, "{partitions}\n{}", server.log());
        Ok(())
    })
    .await
    .unwrap();
    post_all(&server, "AFTER", 100).await;
    logs(&server, "action=AFTER", 100).await;
    scrape_until(&server, "no lag", Scrape::is_drained).await;
}

/// Sums a metric of all workers.
async fn sum(workers: &[Server], name: &str) -> f64 {
    let mut total = 0.0;
    for worker in workers {
        total += Scrape::of(worker).await.sum(name);
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_records_of_a_deleted_topic_are_not_reported_as_lost() {
    const RECORDS: u32 = 120;
    let deployment = Deployment::shared().await;
    let operator = Operator::new(&deployment.brokers);
    let mut workers = Vec::new();
    for round in 1..=4 {
        operator.create(&deployment.topic, 6, &[]).await;
        // One more each time, so that partitions also change hands.
        workers.push(deployment.server("worker").start().await.unwrap());
        let producer = deployment.producer();
        for n in 0..RECORDS {
            let (topic, user) = (&deployment.topic, format!("u{round}-{n}"));
            let value = json!({
                "userId": user, "action": "A", "timestamp": "2026-01-01T00:00:00Z", "metadata": {},
            });
            let value = value.to_string();
            eventually("the record to be sent", TIMEOUT, async || {
                let record = rdkafka::producer::FutureRecord::to(topic).key(&user).payload(&value);
                producer.send(record, TIMEOUT).await.map(drop).map_err(|(error, _)| error.into())
            })
            .await
            .unwrap();
        }
        eventually("all records to be stored and committed", NOTICED, async || {
            let stored = sum(&workers, "eyego_worker_stored_total").await;
            ensure!(stored == f64::from(round * RECORDS), "{stored} stored in round {round}");
            let mut owned = 0;
            for worker in &workers {
                let scrape = Scrape::of(worker).await;
                ensure!(scrape.is_drained(), "{}", worker.log());
                owned += scrape.partitions();
            }
            ensure!(owned == 6, "{owned} partitions are owned");
            Ok(())
        })
        .await
        .unwrap();
        let lost = sum(&workers, "eyego_worker_expired_total").await;
        let logs = || workers.iter().map(Server::log).collect::<Vec<_>>().join("\n---\n");
        assert_eq!(lost, 0.0, "round {round}\n{}", logs());
        operator.delete(&deployment.topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_records_that_were_not_delivered_are_lost_with_their_topic() {
    const BATCHES: u32 = 7;
    const PER_BATCH: u32 = 2_000;
    let total = f64::from(BATCHES * PER_BATCH);
    let kafka = Kafka::shared().await.unwrap();
    let mongo = Mongo::prepare(MongoOptions::default()).await.unwrap();
    let deployment = Deployment::on(kafka.bootstrap(), mongo.uri());
    let operator = Operator::new(&deployment.brokers);
    let server = deployment.server("all").start().await.unwrap();
    scrape_until(&server, "the worker to join", |scrape| scrape.partitions() == 6).await;
    // More than the bulks in flight hold, so that the worker pauses.
    for n in 0..BATCHES {
        let event = |m| json!({"userId": format!("u{m}"), "action": "A", "metadata": {"n": n}});
        let batch: Vec<_> = (0..PER_BATCH).map(event).collect();
        let (status, body) = post(&server, "/api/v1/logs/batch", &json!(batch)).await;
        assert_eq!(status, 202, "{body}");
    }
    scrape_until(&server, "the lag", |scrape| scrape.sum("eyego_worker_lag") == total).await;
    operator.delete(&deployment.topic).await;
    let lost = scrape_until(&server, "the loss to be counted", |scrape| {
        scrape.get("eyego_worker_expired_total") > 0.0 && scrape.partitions() == 6
    })
    .await
    .get("eyego_worker_expired_total");
    mongo.up().await.unwrap();
    let is_stored = |scrape: &Scrape| {
        scrape.get("eyego_worker_stored_total") + lost == total && scrape.is_drained()
    };
    let scrape = scrape_until(&server, "everything else to be stored", is_stored).await;
    assert_eq!(scrape.get("eyego_worker_expired_total"), lost);
    scrape.check_worker();
}
