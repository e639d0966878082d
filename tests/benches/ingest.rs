//! Compares single and batched ingest over HTTP with a bare axum handler that returns 202 with the
//! same body, in the same run, on the same cores.
//!
//! `cargo bench -p eyego-log-tests --bench ingest [-- embedded|kafka|batch|keys]`
//!
//! Prints for each workload: events per second, the server's CPU-seconds per million events,
//! latencies, and the ratio to the bare handler. The bare handler is measured before and after the
//! workload, because the speed of a shared machine changes by a fifth within minutes.
//!
//! `keys` compares the CPU time per event of a server with keys and one without, in alternation.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::http::{StatusCode, header};
use stack::keys::{KeysFile, client_with};
use stack::load::{Load, Outcome, RequestFn, ndjson_requests, single_requests, with_token};
use stack::process::cpu_seconds;
use stack::server::Server;
use stack::{Purpose, eventually};

const BARE: &str = "EYEGO_BENCH_BARE";
const SECONDS: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);
/// The time in which the broker's JVM compiles under load.
const KAFKA_WARM_UP: Duration = Duration::from_secs(45);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Ok(port) = std::env::var(BARE) {
        return runtime.block_on(bare(port.parse()?));
    }
    let selected: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_selected =
        |name: &str| selected.is_empty() || selected.iter().any(|selected| selected == name);
    runtime.block_on(async {
        let bare = Bare::start().await?;
        if is_selected("embedded") {
            bare.compare(&SINGLE, embedded(&SINGLE)).await?;
        }
        if is_selected("kafka") {
            bare.compare(&SINGLE, kafka("kafka, single, role api", &SINGLE)).await?;
        }
        if is_selected("batch") {
            bare.compare(&BATCHES, kafka("kafka, NDJSON of 500, role api", &BATCHES)).await?;
        }
        if is_selected("keys") {
            keys().await?;
        }
        Ok(())
    })
}

/// A workload.
struct Work {
    connections: usize,
    /// Events per request.
    events: u64,
}

const SINGLE: Work = Work { connections: 128, events: 1 };
const BATCHES: Work = Work { connections: 32, events: 500 };

impl Work {
    async fn run(&self, address: SocketAddr, duration: Duration) -> Result<Outcome> {
        let request: Arc<RequestFn> = match self.events {
            1 => single_requests(),
            events => ndjson_requests(events),
        };
        Load { address, connections: self.connections, duration, request, rate: None }.run().await
    }
}

/// The name of a measurement, and its outcome.
struct Reached(&'static str, Outcome);

/// Serves the bare handler: `axum::serve`, a body that is read, and a constant response.
async fn bare(port: u16) -> Result<()> {
    const RESPONSE: &str = r#"{"status":"success","message":"Log queued successfully","id":"69682d8d81847b87ab93264b"}"#;
    async fn handler(_: axum::body::Bytes) -> impl axum::response::IntoResponse {
        (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], RESPONSE)
    }
    let router = axum::Router::new()
        .route("/api/v1/logs", axum::routing::post(handler))
        .route("/api/v1/logs/batch", axum::routing::post(handler));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

struct Bare {
    process: Child,
    address: SocketAddr,
}

impl Drop for Bare {
    fn drop(&mut self) {
        // An error at the end of a benchmark is of no interest.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Bare {
    async fn start() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new(std::env::current_exe()?)
            .env(BARE, port.to_string())
            .stdin(Stdio::null())
            .spawn()?;
        let bare = Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        eventually("the bare handler to listen", Duration::from_secs(5), async || {
            Ok(tokio::net::TcpStream::connect(bare.address).await?)
        })
        .await?;
        Ok(bare)
    }

    async fn measure(&self, work: &Work) -> Result<f64> {
        work.run(self.address, WARM_UP).await?;
        let before = cpu_seconds(self.process.id())?;
        let outcome = work.run(self.address, SECONDS).await?;
        report("bare axum handler", &outcome, work, cpu_seconds(self.process.id())? - before);
        Ok(outcome.rate())
    }

    /// Runs a measurement and prints its ratio to the bare handler.
    async fn compare(
        &self,
        work: &Work,
        measured: impl Future<Output = Result<Vec<Reached>>>,
    ) -> Result<()> {
        let before = self.measure(work).await?;
        let measured = measured.await?;
        let after = self.measure(work).await?;
        let limit = f64::midpoint(before, after);
        for Reached(name, outcome) in measured {
            println!("{name}: {:.0} % of bare", outcome.rate() / limit * 100.0);
        }
        println!();
        Ok(())
    }
}

async fn embedded(work: &Work) -> Result<Vec<Reached>> {
    const BURST: &str = "embedded, role all, burst of 10 s";
    const SUSTAINED: &str = "embedded, role all, 30 s more";

    let server = Server::builder().start().await?;
    server.wait_ready(Duration::from_secs(10)).await?;
    let address = server.address();
    let before = server.cpu_seconds()?;
    let burst = work.run(address, SECONDS).await?;
    let cpu = server.cpu_seconds()? - before;
    report(BURST, &burst, work, cpu);
    println!("  {} events are queued and not stored", lag(&server).await?);
    let sustained = work.run(address, SECONDS * 3).await?;
    let cpu = server.cpu_seconds()? - before - cpu;
    report(SUSTAINED, &sustained, work, cpu);
    println!("  {} events are queued and not stored", lag(&server).await?);
    let began = Instant::now();
    drained(&server, None).await?;
    println!("  everything stored {:.1} s after the last request", began.elapsed().as_secs_f64());
    let events = burst.accepted + sustained.accepted;
    let cpu = server.cpu_seconds()? - before;
    println!("  {:.1} CPU-s/M from request to store", cpu / events as f64 * 1e6);
    Ok(vec![Reached(BURST, burst), Reached(SUSTAINED, sustained)])
}

/// Returns the number of records that the worker has not committed, as of the last second.
async fn lag(server: &Server) -> Result<i64> {
    server.sample("eyego_worker_lag{partition=\"0\"}").await?.context("the lag is not exported")
}

/// Waits until a log that is posted now can be read. The queue is in order, so all logs before it
/// can be read as well.
async fn drained(server: &Server, token: Option<&str>) -> Result<()> {
    let client = client_with(token, Duration::from_secs(30))?;
    let url = format!("{}/api/v1/logs", server.base_url());
    let marker = serde_json::json!({"userId": "marker", "action": "MARK"});
    let response = client.post(&url).json(&marker).send().await?;
    let body: serde_json::Value = response.json().await?;
    let id = body["id"].as_str().context("no id")?;
    eventually("the marker to be stored", Duration::from_secs(600), async || {
        let status = client.get(format!("{url}/{id}")).send().await?.status();
        ensure!(status.is_success(), "status {status}");
        Ok(())
    })
    .await
}

/// Measures the CPU time of a server without keys and of one with keys: nine pairs, each from the
/// first request until everything is stored.
async fn keys() -> Result<()> {
    const PAIRS: usize = 9;
    const PART: Duration = Duration::from_secs(4);

    let keys = KeysFile::new()?;
    let token = keys.add("bench", &["ingest", "read"])?;
    let open = Server::builder().start().await?;
    let keyed = Server::builder().env("EYEGO_KEYS_FILE", keys.path()).start().await?;
    let mut ratios = Vec::new();
    for pair in 0..=PAIRS {
        let mut costs = [0.0; 2];
        // The order alternates, because the machine's speed changes.
        for index in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            let (server, request) = match index {
                0 => (&open, single_requests()),
                _ => (&keyed, with_token(single_requests(), &token)),
            };
            let before = server.cpu_seconds()?;
            let (address, connections) = (server.address(), SINGLE.connections);
            let load = Load { address, connections, duration: PART, request, rate: None };
            let outcome = load.run().await?;
            ensure!(outcome.others + outcome.broken == 0, "{outcome:?}");
            drained(server, (index == 1).then_some(token.as_str())).await?;
            costs[index] = (server.cpu_seconds()? - before) / outcome.accepted as f64 * 1e6;
        }
        // The first pair warms up.
        if pair > 0 {
            println!("CPU-s/M: {:.2} without keys, {:.2} with keys", costs[0], costs[1]);
            ratios.push(costs[1] / costs[0]);
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("keys: median of the ratios {:.3}, of {ratios:.3?}\n", ratios[PAIRS / 2]);
    Ok(())
}

async fn kafka(name: &'static str, work: &Work) -> Result<Vec<Reached>> {
    let kafka = stack::kafka::Kafka::shared_with(Purpose::Benchmarks).await?;
    let mongo = stack::mongodb::Mongo::shared_with(Purpose::Benchmarks).await?;
    let server = Server::builder()
        .env("EYEGO_ROLE", "api")
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_KAFKA_TOPIC", stack::unique("bench"))
        .env("EYEGO_MONGODB_URI", mongo.uri())
        .start()
        .await?;
    server.wait_ready(Duration::from_secs(30)).await?;
    let address = server.address();
    work.run(address, KAFKA_WARM_UP).await?;
    let before = server.cpu_seconds()?;
    let outcome = work.run(address, SECONDS).await?;
    report(name, &outcome, work, server.cpu_seconds()? - before);
    Ok(vec![Reached(name, outcome)])
}

fn report(name: &str, outcome: &Outcome, work: &Work, cpu: f64) {
    let accepted = (outcome.accepted * work.events) as f64;
    println!(
        "{name}: {:.0} events/s; {:.1} CPU-s/M of the server; p50 {:?}, p99 {:?}; {} times 503, {} other responses",
        outcome.rate() * work.events as f64,
        cpu / accepted * 1e6,
        outcome.percentile(0.5),
        outcome.percentile(0.99),
        outcome.unavailable,
        outcome.others,
    );
}
