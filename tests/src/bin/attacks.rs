//! Attacks a server in all known ways at once, beside one well-behaved caller.
//!
//! `cargo run --release -p eyego-log-tests --bin attacks -- --minutes 30`

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use serde_json::json;
use stack::hostile::{Victim, run_all};
use stack::keys::{KeysFile, client_with};
use stack::memory_limit::MemoryLimit;
use stack::server::Server;
use stack::steady::SteadyCaller;
use tokio::runtime::Builder;

/// Events of 240 KB that are stored before, so that pages are large.
const LARGE_EVENTS: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Starts a server with its default settings, keys and a memory limit. Slow senders, slow readers, hostile
/// bodies and queries, compressed bombs, large pages, exports, scans, wrong tokens, a flood of connections
/// and random requests attack it, while one caller posts events at a steady rate. Fails if the caller's
/// 99th percentile is too large, an acknowledged event is not stored once, the server panics, exits or
/// exceeds its memory limit.
#[derive(Debug, Parser)]
struct Cli {
    /// The duration, in minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// The random seed of the random requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events per second of the well-behaved caller.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// The memory limit, in MiB.
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// The largest 99th percentile of the caller's latency, in milliseconds.
    #[arg(long, default_value_t = 100)]
    max_p99: u64,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a summary for a person")]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let keys = KeysFile::new()?;
    let caller_token = keys.add("caller", &["ingest", "read", "metrics"])?;
    let scopes = ["ingest", "read", "erase", "admin", "metrics"];
    let attacker_token = keys.add("attacker", &scopes)?;
    let server = Server::builder().env("EYEGO_KEYS_FILE", keys.path()).start().await?;
    server.wait_ready(TIMEOUT).await?;
    let limit = MemoryLimit::of_process(server.pid()?, cli.memory << 20);
    if let Err(error) = &limit {
        println!("no memory limit: {error}; only the resident memory is observed");
    }
    store_large_events(&server, &attacker_token).await?;

    let deadline = Instant::now() + Duration::from_secs_f64(cli.minutes * 60.0);
    let victim = Victim { address: server.address(), token: attacker_token, deadline };
    let caller = SteadyCaller::new(server.base_url(), &caller_token)?;
    // On a thread of its own, so that it never waits for a task of the attackers.
    let caller = thread::spawn(move || {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let observed = caller.send(cli.rate, deadline).await?;
            let checked = caller.check(&observed).await;
            anyhow::Ok((observed, checked))
        })
    });
    let attacks = tokio::spawn(async move { run_all(&victim, cli.seed).await });
    let peak = watch_memory(&server, deadline).await;
    let attacks = attacks.await.context("an attack panicked")?;
    let observed = tokio::task::spawn_blocking(move || caller.join()).await?;
    let (observed, checked) = observed.map_err(|_| anyhow!("the caller panicked"))??;

    let mut violations = Vec::new();
    for (name, statuses) in attacks {
        println!("{name}: {statuses:?}");
    }
    println!(
        "caller: {} acknowledged, {} retries, {} given up; p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, max {:.1?}",
        observed.acknowledged,
        observed.retries,
        observed.given_up,
        observed.per_mille(500),
        observed.per_mille(990),
        observed.per_mille(999),
        observed.per_mille(1000)
    );
    println!("p99 in each tenth of the time: {:.0?}", observed.p99_by_tenth);
    let max_p99 = Duration::from_millis(cli.max_p99);
    if observed.per_mille(990) > max_p99 {
        violations.push(format!("the 99th percentile is above {max_p99:?}"));
    }
    if observed.given_up > 0 {
        violations.push(format!("{} events were not acknowledged", observed.given_up));
    }
    if peak > cli.memory << 20 {
        violations.push(format!("the server used {} MiB of memory", peak >> 20));
    }
    if !server.is_running() {
        violations.push(format!("the server exited:\n{}", tail(&server.log())));
    } else if let Err(error) = checked {
        violations.push(format!("{error:#}"));
    }
    if server.log().contains("panicked") {
        violations.push(format!("the server panicked:\n{}", tail(&server.log())));
    }
    let group = limit.ok().and_then(|limit| limit.peak_bytes().ok());
    let group = group.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    println!("memory: at most {} MiB resident, {group} with the cache of files", peak >> 20);
    println!("{} violations", violations.len());
    for violation in &violations {
        println!("- {violation}");
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the end of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

async fn store_large_events(server: &Server, token: &str) -> Result<()> {
    let client = client_with(Some(token), TIMEOUT)?;
    let url = format!("{}/api/v1/logs/batch", server.base_url());
    let text = "x".repeat(240_000);
    let event = json!({"userId": "large", "action": "LARGE", "metadata": {"text": text}});
    let batch = vec![event; 20];
    for _ in 0..LARGE_EVENTS / batch.len() {
        let status = client.post(&url).json(&batch).send().await?.status();
        ensure!(status == 202, "the large events cannot be stored: {status}");
    }
    Ok(())
}

/// Returns the largest resident set until the deadline, in bytes.
async fn watch_memory(server: &Server, deadline: Instant) -> u64 {
    let mut peak = 0;
    while Instant::now() < deadline && server.is_running() {
        peak = peak.max(server.rss_bytes().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    peak
}
