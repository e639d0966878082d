//! Deletes expired events beside ingest: measures how the latency of ingest changes, and checks that
//! exactly the right events remain.
//!
//! `cargo bench -p eyego-log-tests --bench retention [-- embedded|mongodb] [EVENTS]`
//!
//! Stores events (default 1,000,000) of 1,000 users, 0 to 400 days old, and restarts the server with a
//! retention of 30 days and two exceptions. Then it restarts the server with durations that are an hour
//! shorter, which is the same as a clock that is an hour later.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use eyego_log_core::Timestamp;
use serde_json::Value;
use stack::load::{Load, Outcome, single_requests};
use stack::mongodb::Mongo;
use stack::server::Server;
use stack::{Purpose, eventually};

const BATCH: u64 = 500;
const USERS: u64 = 1_000;
const SLICE: Duration = Duration::from_secs(10);
const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
/// The actions, and how long their events are kept, in seconds.
const ACTIONS: [(&str, u64); 3] = [("VIEW", 30 * DAY), ("LOGIN", 365 * DAY), ("DEBUG", DAY)];

fn main() -> Result<()> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let events = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let names = ["embedded", "mongodb"];
    let is_any = arguments.iter().any(|argument| names.contains(&argument.as_str()));
    let is_selected = |name: &str| !is_any || arguments.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if is_selected("embedded") {
            measure("embedded store", Vec::new(), events).await?;
        }
        if is_selected("mongodb") {
            let mongo = Mongo::shared_with(Purpose::Benchmarks).await?;
            let store = vec![
                ("EYEGO_MONGODB_URI", mongo.uri().to_owned()),
                ("EYEGO_MONGODB_DATABASE", stack::unique("bench")),
            ];
            measure("MongoDB", store, events).await?;
        }
        Ok(())
    })
}

/// What is deleted: the durations are this much shorter than those of [`ACTIONS`]. `None`: nothing.
type Shortened = Option<u64>;

async fn measure(name: &str, store: Vec<(&str, String)>, events: u64) -> Result<()> {
    println!("{name}, {events} events");
    let dir = tempfile::tempdir()?;
    let base = SystemTime::now();
    let server = start(dir.path(), &store, None).await?;
    fill(&server, events, base).await?;
    let full = load(&server, None, SLICE).await?;
    let sustained = full.rate();
    settled(&server).await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let half = (sustained / 2.0) as u64;
    drop(server);

    // Restarted as well, so that only the deletion differs.
    let server = start(dir.path(), &store, None).await?;
    load(&server, Some(half), SLICE / 2).await?;
    let alone = load(&server, Some(half), 2 * SLICE).await?;
    report(&format!("{half}/s alone"), &alone);
    drop(server);

    let mut deleted_before = 0;
    for shortened in [0, HOUR] {
        let server = start(dir.path(), &store, Some(shortened)).await?;
        let expected = (0..events).filter(|n| !is_kept(*n, Some(shortened))).count() as u64;
        let to_delete = expected - deleted_before;
        let is_done = AtomicBool::new(false);
        let began = Instant::now();
        let deletion = async {
            let deleted = eventually("the deletion", Duration::from_secs(900), async || {
                let deleted = sample(&server, "eyego_removal_deleted_total{reason=\"expired\"}");
                let (deleted, pass) =
                    (deleted.await?, server.sample("eyego_retention_pass_seconds").await);
                ensure!(deleted >= to_delete && !matches!(pass, Ok(None)), "{deleted}");
                Ok(deleted)
            });
            let deleted = deleted.await;
            is_done.store(true, Ordering::Release);
            anyhow::Ok((deleted?, began.elapsed()))
        };
        let beside = async {
            let mut slices = Vec::new();
            while !is_done.load(Ordering::Acquire) {
                slices.push(load(&server, Some(half), SLICE).await?);
            }
            anyhow::Ok(slices)
        };
        let (deleted, slices) = tokio::join!(deletion, beside);
        let ((deleted, took), slices) = (deleted?, slices?);
        println!("  {deleted} events deleted in {:.1} s", took.as_secs_f64());
        for slice in &slices {
            report(&format!("{half}/s beside the deletion"), slice);
        }
        check(&server, events, shortened).await?;
        deleted_before = expected;
    }
    println!();
    Ok(())
}

async fn start(dir: &Path, store: &[(&str, String)], shortened: Shortened) -> Result<Server> {
    let mut builder = Server::builder().data_dir(dir);
    for (name, value) in store {
        builder = builder.env(name, value);
    }
    if let Some(shortened) = shortened {
        let [(_, default), exceptions @ ..] =
            ACTIONS.map(|(action, kept)| (action, kept - shortened));
        let exceptions = exceptions.map(|(action, kept)| format!("{action}={kept}s"));
        builder = builder
            .env("EYEGO_RETENTION", format!("{default}s"))
            .env("EYEGO_RETENTION_BY_ACTION", exceptions.join(";"));
    }
    let server = builder.start().await?;
    server.wait_ready(Duration::from_secs(30)).await?;
    Ok(server)
}

/// Returns the action and the age of an event, in seconds: half an hour away from every full hour, so
/// that no event expires during the run.
fn properties(n: u64) -> (usize, u64) {
    let random = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    let action = match random % 10 {
        0 | 1 => 1,
        2 => 2,
        _ => 0,
    };
    // Half of the events are close to the limit of their action.
    let hours = (random >> 8) % (400 * 24);
    let (_, kept) = ACTIONS[action];
    let near = (kept / HOUR + 12).saturating_sub(hours % 24);
    let age = if (random >> 24).is_multiple_of(2) { hours } else { near };
    (action, age * HOUR + HOUR / 2)
}

fn is_kept(n: u64, shortened: Shortened) -> bool {
    let (action, age) = properties(n);
    shortened.is_none_or(|shortened| age < ACTIONS[action].1 - shortened)
}

fn event(n: u64, base: SystemTime) -> String {
    let (action, age) = properties(n);
    let timestamp = Timestamp::from(base - Duration::from_secs(age));
    format!(
        r#"{{"userId":"user-{}","action":"{}","timestamp":"{timestamp}","metadata":{{"page":"home","browser":"chrome","number":{n},"referrer":"https://example.com/a/b"}}}}"#,
        n % USERS,
        ACTIONS[action].0
    )
}

/// Sends the events once each and waits until they are stored.
async fn fill(server: &Server, events: u64, base: SystemTime) -> Result<()> {
    let began = Instant::now();
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/logs/batch", server.base_url());
    for first in (0..events).step_by(usize::try_from(BATCH)?) {
        let lines: Vec<_> = (first..events.min(first + BATCH)).map(|n| event(n, base)).collect();
        loop {
            let request = client.post(&url).header("content-type", "application/x-ndjson");
            let status = request.body(lines.join("\n")).send().await?.status().as_u16();
            match status {
                202 => break,
                // The whole batch was refused: storing is behind.
                503 => tokio::time::sleep(Duration::from_millis(100)).await,
                status => anyhow::bail!("a batch: status {status}"),
            }
        }
    }
    settled(server).await?;
    println!("  stored after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until a log that is posted now is stored, and all before it.
async fn settled(server: &Server) -> Result<()> {
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/logs?wait=stored&timeout=30s", server.base_url());
    eventually("the queue to be drained", Duration::from_secs(300), async || {
        let marker = serde_json::json!({"userId": "marker", "action": "MARK"});
        let status = client.post(&url).json(&marker).send().await?.status().as_u16();
        ensure!(status == 200, "status {status}");
        Ok(())
    })
    .await
}

async fn load(server: &Server, rate: Option<u64>, duration: Duration) -> Result<Outcome> {
    let connections = if rate.is_some() { 256 } else { 128 };
    let (address, request) = (server.address(), single_requests());
    let outcome = Load { address, connections, duration, request, rate }.run().await?;
    ensure!(outcome.others + outcome.broken == 0, "{outcome:?}");
    Ok(outcome)
}

async fn sample(server: &Server, series: &str) -> Result<u64> {
    Ok(u64::try_from(server.sample(series).await?.unwrap_or(0))?)
}

/// Checks that exactly the events remain that should.
async fn check(server: &Server, events: u64, shortened: u64) -> Result<()> {
    let mut kept = vec![false; usize::try_from(events)?];
    for (action, _) in ACTIONS {
        let url = format!("{}/api/v1/logs/export?format=ndjson&action={action}", server.base_url());
        let body = reqwest::get(url).await?.error_for_status()?.bytes().await?;
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let log: Value = serde_json::from_slice(line)?;
            let n = log["metadata"]["number"].as_u64().context("an event without a number")?;
            let known = kept.get_mut(usize::try_from(n)?).context("an unknown number")?;
            ensure!(!std::mem::replace(known, true), "event {n} is there twice");
        }
    }
    let mut counts = BTreeMap::<&str, u64>::new();
    for n in 0..events {
        let (is_there, should_be) = (kept[usize::try_from(n)?], is_kept(n, Some(shortened)));
        let (action, age) = properties(n);
        let (action, age) = (ACTIONS[action].0, age as f64 / DAY as f64);
        ensure!(is_there == should_be, "event {n}, {action}, {age:.2} days old: {is_there}");
        *counts.entry(action).or_default() += u64::from(is_there);
    }
    println!("  exactly the right events remain: {counts:?}");
    Ok(())
}

fn report(name: &str, outcome: &Outcome) {
    println!(
        "  {name}: {:.0}/s, {} times 503; p50 {:?}, p99 {:?}",
        outcome.rate(),
        outcome.unavailable,
        outcome.percentile(0.5),
        outcome.percentile(0.99)
    );
}
