//! Workers that come, go and fall asleep under load, by both protocols of a group, and a primary
//! that steps down all the time: nothing is lost, nothing doubled. One record in a hundred is
//! poison.

use std::time::{Duration, Instant};

use serde_json::json;
use stack::chaos::{Drill, Target};
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::Server;

use crate::conformance::PATIENCE;
use crate::fixture::{Names, send};
use crate::metrics::Scrape;

/// What two busy cores take with ease, debug builds included.
const RATE: u64 = 500;
/// The group's session.
const SESSION: Duration = Duration::from_secs(10);

/// An api, and the workers of one group.
struct Group {
    names: Names,
    api: Server,
    strategy: &'static str,
}

impl Group {
    async fn new(names: Names, strategy: &'static str) -> Self {
        let api = names.server("api", "g").start().await.unwrap();
        api.wait_ready(PATIENCE * 2).await.unwrap();
        Self { names, api, strategy }
    }

    async fn worker(&self) -> Server {
        let strategy = format!("partition.assignment.strategy={}", self.strategy);
        let worker = self.names.server("worker", "g").env("EYEGO_KAFKA_PROPERTIES", strategy);
        worker.start().await.unwrap()
    }

    fn drill(&self, seed: u64, seconds: u64) -> Drill {
        let target = Target {
            brokers: self.names.brokers.clone(),
            topic: self.names.topic.clone(),
            group: format!("{}-g", self.names.topic),
            apis: vec![self.api.base_url()],
        };
        Drill::new(target, seed, RATE * seconds, RATE)
    }
}

async fn stored(worker: &Server) -> f64 {
    Scrape::of(worker).await.get("eyego_worker_stored_total")
}

/// Waits until each of these has stored something more.
async fn all_store(workers: &[&Server]) {
    for worker in workers {
        let before = stored(worker).await;
        let deadline = Instant::now() + PATIENCE * 2;
        while stored(worker).await <= before {
            assert!(Instant::now() < deadline, "it does not store\n{}", worker.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn must_be_clean(drill: &Drill, others: Vec<String>) {
    let complaints = drill.judge(others, PATIENCE * 3).await.unwrap();
    assert!(complaints.is_empty(), "{complaints}");
}

/// From one worker to three and back to one, which is not the first.
async fn scale(strategy: &'static str) {
    let group = Group::new(Names::new().await, strategy).await;
    let drill = group.drill(1, 20);
    let first = group.worker().await;
    let sending = drill.send().unwrap();
    all_store(&[&first]).await;
    let second = group.worker().await;
    let third = group.worker().await;
    all_store(&[&first, &second, &third]).await;
    for worker in [&first, &second] {
        let status = worker.terminate().await.unwrap();
        assert!(status.success(), "{status}\n{}", worker.log());
    }
    assert!(!sending.is_finished(), "the last ones left when the load was over");
    all_store(&[&third]).await;
    sending.await.unwrap().unwrap();
    must_be_clean(&drill, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_come_and_go_by_the_eager_protocol() {
    scale("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_come_and_go_by_the_cooperative_protocol() {
    scale("cooperative-sticky").await;
}

/// A worker sleeps longer than its session, and wakes up with bulks that are another's by now.
async fn oversleep(strategy: &'static str) {
    let group = Group::new(Names::new().await, strategy).await;
    let drill = group.drill(2, 28);
    let (sleeper, other) = (group.worker().await, group.worker().await);
    let sending = drill.send().unwrap();
    all_store(&[&sleeper, &other]).await;
    sleeper.pause().unwrap();
    tokio::time::sleep(SESSION + Duration::from_secs(1)).await;
    // All partitions are the other's now: whatever user an event is of, it flows.
    let mut fresh = Vec::new();
    for n in 0..12 {
        let event = json!({"userId": format!("user-{n}"), "action": "FRESH"});
        let (status, body) = send(&group.api, "/api/v1/logs?wait=stored&timeout=10s", &event).await;
        assert_eq!(status, 200, "{n}: {body}\n{}", other.log());
        fresh.push(body["id"].as_str().unwrap().to_owned());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!sending.is_finished(), "it slept for the whole load");
    sleeper.resume().unwrap();
    all_store(&[&sleeper, &other]).await;
    sending.await.unwrap().unwrap();
    must_be_clean(&drill, fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_overslept_harms_nothing_by_the_eager_protocol() {
    oversleep("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_overslept_harms_nothing_by_the_cooperative_protocol() {
    oversleep("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_steps_down_all_the_time_costs_nothing() {
    let mongo = Mongo::start(MongoOptions::three()).await.unwrap();
    let names = Names { uri: mongo.uri().to_owned(), ..Names::new().await };
    let group = Group::new(names, "cooperative-sticky").await;
    let drill = group.drill(3, 28);
    let worker = group.worker().await;
    let sending = drill.send().unwrap();
    all_store(&[&worker]).await;
    let mut primaries = Vec::new();
    for _ in 0..5 {
        primaries.push(mongo.primary().await.unwrap());
        mongo.step_down(Duration::from_secs(4)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        mongo.ready().await.unwrap();
    }
    primaries.dedup();
    assert!(primaries.len() > 1, "there was no change");
    sending.await.unwrap().unwrap();
    must_be_clean(&drill, Vec::new()).await;
}
