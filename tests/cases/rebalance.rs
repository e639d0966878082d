//! Workers that join, leave and freeze under load, with both rebalance protocols, and a primary that
//! keeps stepping down: no event is lost or stored twice. One record in a hundred is poison.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use stack::chaos::Scenario;
use stack::eventually;
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::Server;

use crate::fixture::{Deployment, TIMEOUT, post, ready};
use crate::metrics::{Scrape, scrape_until};

/// Events per second that two busy cores handle easily, even in a debug build.
const RATE: u64 = 500;
const PARTITIONS: usize = 6;

/// An API, and the workers of one group.
struct Group {
    deployment: Deployment,
    api: Server,
    strategy: &'static str,
}

impl Group {
    async fn new(deployment: Deployment, strategy: &'static str) -> Self {
        let api = ready(deployment.server("api")).await;
        Self { deployment, api, strategy }
    }

    async fn worker(&self) -> Server {
        let strategy = format!("partition.assignment.strategy={}", self.strategy);
        let worker = self.deployment.server("worker").env("EYEGO_KAFKA_PROPERTIES", strategy);
        worker.start().await.unwrap()
    }

    fn scenario(&self, seed: u64, seconds: u64) -> Scenario {
        Scenario::new(self.deployment.target(&self.api), seed, RATE * seconds).rate(RATE)
    }
}

async fn stored(worker: &Server) -> f64 {
    Scrape::of(worker).await.get("eyego_worker_stored_total")
}

/// Waits until each worker has stored something more.
async fn all_store(workers: &[&Server]) {
    for worker in workers {
        let before = stored(worker).await;
        eventually("the worker to store", TIMEOUT * 2, async || {
            let stored = stored(worker).await;
            ensure!(stored > before, "{stored} logs, as before\n{}", worker.log());
            Ok(())
        })
        .await
        .unwrap();
    }
}

async fn assert_no_violations(scenario: &Scenario, others: &[String]) {
    let violations = scenario.check(others, TIMEOUT * 3).await.unwrap();
    assert!(violations.is_empty(), "{violations}");
}

/// Scales from one worker to three and back to one, which is not the first.
async fn scale(strategy: &'static str) {
    let group = Group::new(Deployment::shared().await, strategy).await;
    let scenario = group.scenario(1, 20);
    let first = group.worker().await;
    let sending = scenario.send().unwrap();
    all_store(&[&first]).await;
    let second = group.worker().await;
    let third = group.worker().await;
    all_store(&[&first, &second, &third]).await;
    for worker in [&first, &second] {
        let status = worker.terminate().await.unwrap();
        assert!(status.success(), "{status}\n{}", worker.log());
    }
    assert!(!sending.is_finished(), "the load was over before the workers left");
    all_store(&[&third]).await;
    sending.await.unwrap().unwrap();
    assert_no_violations(&scenario, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_with_the_eager_protocol_loses_nothing() {
    scale("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_with_the_cooperative_protocol_loses_nothing() {
    scale("cooperative-sticky").await;
}

/// A worker is frozen for longer than its session, and then resumes with bulks whose partitions
/// belong to another worker.
async fn freeze_beyond_the_session(strategy: &'static str) {
    let group = Group::new(Deployment::shared().await, strategy).await;
    let scenario = group.scenario(2, 40);
    let (frozen, other) = (group.worker().await, group.worker().await);
    let sending = scenario.send().unwrap();
    all_store(&[&frozen, &other]).await;
    frozen.pause().unwrap();
    let owns_all = |scrape: &Scrape| scrape.partitions() == PARTITIONS;
    scrape_until(&other, "the other worker to own all partitions", owns_all).await;
    // Events of every partition are stored.
    let mut fresh = Vec::new();
    for n in 0..12 {
        let event = json!({"userId": format!("user-{n}"), "action": "FRESH"});
        let (status, body) = post(&group.api, "/api/v1/logs?wait=stored&timeout=10s", &event).await;
        assert_eq!(status, 200, "{n}: {body}\n{}", other.log());
        fresh.push(body["id"].as_str().unwrap().to_owned());
    }
    assert!(!sending.is_finished(), "the load was over before the worker resumed");
    frozen.resume().unwrap();
    all_store(&[&frozen, &other]).await;
    sending.await.unwrap().unwrap();
    assert_no_violations(&scenario, &fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn freeze_beyond_the_session_with_the_eager_protocol_loses_nothing() {
    freeze_beyond_the_session("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn freeze_beyond_the_session_with_the_cooperative_protocol_loses_nothing() {
    freeze_beyond_the_session("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_step_downs_of_the_primary_lose_nothing() {
    /// The time in which a primary that stepped down cannot be elected.
    const STEP_DOWN: Duration = Duration::from_secs(4);

    let mongo = Mongo::start(MongoOptions::three()).await.unwrap();
    let mut deployment = Deployment::shared().await;
    mongo.uri().clone_into(&mut deployment.uri);
    let group = Group::new(deployment, "cooperative-sticky").await;
    let scenario = group.scenario(3, 28);
    let worker = group.worker().await;
    let sending = scenario.send().unwrap();
    all_store(&[&worker]).await;
    let mut primaries = Vec::new();
    for _ in 0..5 {
        primaries.push(mongo.primary().await.unwrap());
        mongo.step_down(STEP_DOWN).await.unwrap();
        // Afterwards every member can be elected again.
        tokio::time::sleep(STEP_DOWN + Duration::from_secs(1)).await;
        mongo.ready().await.unwrap();
    }
    primaries.dedup();
    assert!(primaries.len() > 1, "the primary never changed");
    sending.await.unwrap().unwrap();
    assert_no_violations(&scenario, &[]).await;
}
