//! Measures the latency of a 202 and the time until an event is stored, at half of the rate that the
//! whole pipeline from HTTP through Kafka to MongoDB sustains, on the same cores, in the same run.
//!
//! `cargo bench -p eyego-log-tests --bench latency`
//!
//! The sustained rate is the number of accepted events divided by the time until all of them were
//! stored. At half of it the load is open: an event is due at its time, whether or not earlier ones
//! have been acknowledged.
//!
//! `mongod` runs at a lower priority than the rest: see `stack::Purpose::Benchmarks`.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::Document;
use mongodb::{Client, Collection};
use serde_json::json;
use stack::Purpose;
use stack::kafka::Kafka;
use stack::load::{Load, Outcome, single_requests};
use stack::mongodb::Mongo;
use stack::server::Server;

/// The time in which the broker's JVM compiles.
const WARM_UP: Duration = Duration::from_secs(25);
/// The time at half of the rate before the measurement begins.
const STEADY: Duration = Duration::from_secs(15);
const SECONDS: Duration = Duration::from_secs(20);
/// The connections of the full load, which waits for each response.
const CONNECTIONS: usize = 128;
/// The connections of the open loads. Each request in flight needs one: 17,000/s that take 15 ms are
/// 255. With fewer, events would wait for a connection.
const OPEN_CONNECTIONS: usize = 256;
/// The time between two events whose time to be stored is measured.
const PROBE_EVERY: Duration = Duration::from_millis(40);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let (kafka, mongo) = (
        Kafka::shared_with(Purpose::Benchmarks).await?,
        Mongo::shared_with(Purpose::Benchmarks).await?,
    );
    let database = stack::unique("bench");
    let server = Server::builder()
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_KAFKA_TOPIC", &database)
        .env("EYEGO_KAFKA_GROUP", &database)
        .env("EYEGO_MONGODB_URI", mongo.uri())
        .env("EYEGO_MONGODB_DATABASE", &database)
        .start()
        .await?;
    server.wait_ready(Duration::from_secs(30)).await?;
    let logs: Collection<Document> =
        Client::with_uri_str(mongo.uri()).await?.database(&database).collection("logs");
    let address = server.address();

    load(address, WARM_UP, None).await?;
    stable(&logs).await?;
    let began = Instant::now();
    let outcome = load(address, SECONDS, None).await?;
    stable(&logs).await?;
    let sustained = outcome.accepted as f64 / began.elapsed().as_secs_f64();
    println!("sustained, accepted and stored: {sustained:.0}/s");

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let half = (sustained / 2.0) as u64;
    // Lets MongoDB and the system write back what the full load left in their caches.
    load(address, STEADY, Some(half)).await?;
    let (outcome, stored) =
        tokio::join!(load(address, SECONDS, Some(half)), times_to_store(&server));
    let (outcome, stored) = (outcome?, stored?);
    ensure!(outcome.unavailable + outcome.others + outcome.broken == 0, "{outcome:?}");
    println!(
        "at {:.0}/s: 202 after p50 {:?}, p99 {:?}",
        outcome.rate(),
        outcome.percentile(0.5),
        outcome.percentile(0.99)
    );
    println!(
        "at {:.0}/s: stored after p50 {:?}, p99 {:?} ({} probes)",
        outcome.rate(),
        stored[stored.len() / 2],
        stored[stored.len() * 99 / 100],
        stored.len()
    );
    Ok(())
}

async fn load(address: SocketAddr, duration: Duration, rate: Option<u64>) -> Result<Outcome> {
    let connections = if rate.is_some() { OPEN_CONNECTIONS } else { CONNECTIONS };
    Load { address, connections, duration, request: single_requests(), rate }.run().await
}

/// Waits until the number of stored logs stays the same.
async fn stable(logs: &Collection<Document>) -> Result<()> {
    let mut count = logs.estimated_document_count().await?;
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = logs.estimated_document_count().await?;
        if now == count && now > 0 {
            return Ok(());
        }
        count = now;
    }
}

/// Returns the times from the request to the response that the event is stored, ascending.
async fn times_to_store(server: &Server) -> Result<Vec<Duration>> {
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/logs?wait=stored&timeout=30s", server.base_url());
    let began = Instant::now();
    let mut probes = Vec::new();
    while began.elapsed() < SECONDS {
        let (client, url, n) = (client.clone(), url.clone(), probes.len());
        probes.push(tokio::spawn(async move {
            let began = Instant::now();
            let event = json!({"userId": format!("probe-{n}"), "action": "PROBE"});
            let response = client.post(url).json(&event).send().await?;
            ensure!(response.status() == 200, "a probe: status {}", response.status());
            Ok(began.elapsed())
        }));
        tokio::time::sleep(PROBE_EVERY).await;
    }
    let mut times = Vec::new();
    for probe in probes {
        times.push(probe.await.context("a probe panicked")??);
    }
    times.sort_unstable();
    Ok(times)
}
