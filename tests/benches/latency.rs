//! How long a 202 takes, and how long it is until an event is stored, at half of the rate that the
//! whole way from HTTP through Kafka into MongoDB sustains, on the same cores, in the same run.
//!
//! `cargo bench -p eyego-log-tests --bench latency`
//!
//! The sustained rate is what was accepted divided by the time until all of it was stored. Loads at
//! half of it are open: an event is due at its time, whatever became of those before it.
//!
//! `mongod` runs at a lower priority than the rest: see `stack::Purpose::Figures`.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures for a person")]

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

/// The JVM of the broker compiles in this time.
const WARM_UP: Duration = Duration::from_secs(25);
/// At half of the rate, before anything is timed.
const STEADY: Duration = Duration::from_secs(15);
const SECONDS: Duration = Duration::from_secs(20);
/// Of the full load, which waits for each answer.
const CONNECTIONS: usize = 128;
/// Of the open loads: a request under way needs one, and 17,000/s that take 15 ms are 255. With
/// fewer, events wait for a connection long before that is exceeded.
const OPEN_CONNECTIONS: usize = 256;
/// Between two events whose way into the store is timed.
const PROBE_EVERY: Duration = Duration::from_millis(40);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let (kafka, mongo) =
        (Kafka::shared_with(Purpose::Figures).await?, Mongo::shared_with(Purpose::Figures).await?);
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
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));

    load(address, WARM_UP, None).await?;
    settled(&logs).await?;
    let began = Instant::now();
    let outcome = load(address, SECONDS, None).await?;
    settled(&logs).await?;
    let sustained = outcome.accepted as f64 / began.elapsed().as_secs_f64();
    println!("sustained, accepted and stored: {sustained:.0}/s");

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let half = (sustained / 2.0) as u64;
    // What the full load has left to write (of MongoDB's cache, of the system's) is not of half of it.
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

/// Waits until the store grows no more.
async fn settled(logs: &Collection<Document>) -> Result<()> {
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

/// From the request to the answer that it can be read back, ascending.
async fn times_to_store(server: &Server) -> Result<Vec<Duration>> {
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/logs?wait=stored&timeout=30s", server.base_url());
    let began = Instant::now();
    let mut probes = Vec::new();
    while began.elapsed() < SECONDS {
        let (client, url, n) = (client.clone(), url.clone(), probes.len());
        probes.push(tokio::spawn(async move {
            let asked = Instant::now();
            let event = json!({"userId": format!("probe-{n}"), "action": "PROBE"});
            let answer = client.post(url).json(&event).send().await?;
            ensure!(answer.status() == 200, "a probe was answered {}", answer.status());
            Ok(asked.elapsed())
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
