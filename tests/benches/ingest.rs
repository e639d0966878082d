//! Single and batched ingest over HTTP, against a bare axum handler that answers 202 with the
//! same body, in the same run, on the same cores.
//!
//! `cargo bench -p eyego-log-tests --bench ingest [-- embedded|kafka|batch]`
//!
//! Prints for each work: requests and events per second, the ratio to the bare handler, the
//! server's CPU-seconds per million events, and latencies.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures for a person")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::http::{StatusCode, header};
use stack::Purpose;
use stack::load::{Load, Outcome, Request, cpu_seconds, ndjson_requests, single_requests};
use stack::server::Server;

const BARE: &str = "EYEGO_BENCH_BARE";
const SECONDS: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);
/// The broker, a JVM, compiles itself while it is loaded: measured in steps of 10 s, 16, 38, 39, 50, 51
/// thousand single events a second, and no more from there on.
const KAFKA_WARM_UP: Duration = Duration::from_secs(45);
const BATCH: u64 = 500;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Ok(port) = std::env::var(BARE) {
        return runtime.block_on(bare(port.parse()?));
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    runtime.block_on(async {
        let limit = bare_limit().await?;
        if is_wanted("embedded") {
            embedded(limit).await?;
        }
        if is_wanted("kafka") {
            kafka("kafka, single, role api", limit, false).await?;
        }
        if is_wanted("batch") {
            kafka("kafka, NDJSON of 500, role api", limit, true).await?;
        }
        Ok(())
    })
}

/// The bare handler: axum's own serve, a body that is read, a constant answer.
async fn bare(port: u16) -> Result<()> {
    const ANSWER: &str = r#"{"status":"success","message":"Log queued successfully","id":"69682d8d81847b87ab93264b"}"#;
    async fn handler(_: axum::body::Bytes) -> impl axum::response::IntoResponse {
        (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], ANSWER)
    }
    let router = axum::Router::new().route("/api/v1/logs", axum::routing::post(handler));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        // Best effort at the end of a benchmark.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn bare_limit() -> Result<f64> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let child = Command::new(std::env::current_exe()?)
        .env(BARE, port.to_string())
        .stdin(Stdio::null())
        .spawn()?;
    let bare = Bare(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let patience = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(address).is_err() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run(address, 128, WARM_UP, single_requests()).await?;
    let before = cpu_seconds(bare.0.id())?;
    let outcome = run(address, 128, SECONDS, single_requests()).await?;
    report("bare axum handler", &outcome, 1, cpu_seconds(bare.0.id())? - before, None);
    Ok(outcome.rate())
}

async fn embedded(limit: f64) -> Result<()> {
    let server = Server::builder().start().await?;
    server.wait_ready(Duration::from_secs(10)).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let before = server.cpu_seconds()?;
    let burst = run(address, 128, SECONDS, single_requests()).await?;
    let cpu = server.cpu_seconds()? - before;
    report("embedded, role all, burst of 10 s", &burst, 1, cpu, Some(limit));
    println!("  {} events are queued and not stored", lag(&server).await?);
    let sustained = run(address, 128, SECONDS * 3, single_requests()).await?;
    let cpu = server.cpu_seconds()? - before - cpu;
    report("embedded, role all, 30 s more", &sustained, 1, cpu, Some(limit));
    println!("  {} events are queued and not stored", lag(&server).await?);
    let drained = Instant::now();
    while !is_drained(&server).await? {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("  everything stored {:.1} s after the last request", drained.elapsed().as_secs_f64());
    let events = burst.accepted + sustained.accepted;
    let cpu = server.cpu_seconds()? - before;
    println!("  {:.1} CPU-s/M from request to store", cpu / events as f64 * 1e6);
    Ok(())
}

/// What the worker has not committed, as it saw it in the last second.
async fn lag(server: &Server) -> Result<i64> {
    server.sample("eyego_worker_lag{partition=\"0\"}").await?.context("no lag")
}

/// Whether a log posted now can be read: the queue is in order, so all before it can.
async fn is_drained(server: &Server) -> Result<bool> {
    let client = reqwest::Client::new();
    let body = r#"{"userId":"marker","action":"MARK"}"#;
    let answer: serde_json::Value = client
        .post(format!("{}/api/v1/logs", server.base_url()))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await?
        .json()
        .await?;
    let id = answer["id"].as_str().context("no id")?.to_owned();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let got = client.get(format!("{}/api/v1/logs/{id}", server.base_url())).send().await?;
    Ok(got.status().is_success())
}

async fn kafka(name: &str, limit: f64, batched: bool) -> Result<()> {
    let kafka = stack::kafka::Kafka::shared_with(Purpose::Figures).await?;
    let mongo = stack::mongodb::Mongo::shared_with(Purpose::Figures).await?;
    let server = Server::builder()
        .env("EYEGO_ROLE", "api")
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_KAFKA_TOPIC", stack::unique("bench"))
        .env("EYEGO_MONGODB_URI", mongo.uri())
        .start()
        .await?;
    server.wait_ready(Duration::from_secs(30)).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let (connections, events): (usize, u64) = if batched { (32, BATCH) } else { (128, 1) };
    let request = if batched { ndjson_requests(BATCH) } else { single_requests() };
    run(address, connections, KAFKA_WARM_UP, Arc::clone(&request)).await?;
    let before = server.cpu_seconds()?;
    let outcome = run(address, connections, SECONDS, request).await?;
    let cpu = server.cpu_seconds()? - before;
    report(name, &outcome, events, cpu, (!batched).then_some(limit));
    Ok(())
}

async fn run(
    address: SocketAddr,
    connections: usize,
    duration: Duration,
    request: Arc<Request>,
) -> Result<Outcome> {
    Load { address, connections, duration, request, rate: None }.run().await
}

fn report(name: &str, outcome: &Outcome, events: u64, cpu: f64, limit: Option<f64>) {
    let accepted = (outcome.accepted * events) as f64;
    println!(
        "{name}: {:.0} events/s{}; {:.1} CPU-s/M of the server; p50 {:?}, p99 {:?}; {} times 503, {} other answers",
        outcome.rate() * events as f64,
        limit
            .map(|limit| format!(", {:.0} % of bare", outcome.rate() / limit * 100.0))
            .unwrap_or_default(),
        cpu / accepted * 1e6,
        outcome.percentile(0.5),
        outcome.percentile(0.99),
        outcome.unavailable,
        outcome.others,
    );
}
