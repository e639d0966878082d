//! Compares reading with what the store's own driver needs for the same result, in the same run.
//!
//! `cargo bench -p eyego-log-tests --bench reading [-- STORES] [PARTS] [--events 1e6]`, with the names
//! of [`STORES`] and [`PARTS`], separated by spaces. Without any, all are measured.
//!
//! Fills a store through its port, with a million events by default. Queries and statistics run in
//! this process, through the port; the limit runs the same query through the driver, with the ideal
//! index for it. The export, tails and ingest beside readers run in server processes on the same data.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]

mod data;
mod embedded;
mod mongodb;
mod queries;
mod server;
mod tails;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const DEFAULT_EVENTS: u64 = 1_000_000;

/// `kafka` is MongoDB with Kafka as the queue instead of the embedded one, for `scans` and `tails` only.
const STORES: [&str; 3] = ["embedded", "mongodb", "kafka"];
/// `scans` and `tails` measure ingest beside them.
const PARTS: [&str; 6] = ["queries", "export", "delay", "scans", "tails", "memory"];

/// The stores and the parts of the bench that are named on the command line.
struct Selection(Vec<String>);

impl Selection {
    /// Returns whether a store or a part is to be measured: if it is named, or none of its kind is.
    fn contains(&self, name: &str) -> bool {
        let kind: &[&str] = if STORES.contains(&name) { &STORES } else { &PARTS };
        let is_named = |name: &str| self.0.iter().any(|selected| selected == name);
        is_named(name) || !kind.iter().any(|name| is_named(name))
    }
}

fn main() -> Result<()> {
    let (mut selected, mut events) = (Vec::new(), DEFAULT_EVENTS);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--events" => {
                let value = arguments.next().context("--events needs a number such as 1e6")?;
                let number: f64 = value.parse().with_context(|| format!("--events {value}"))?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "whole"
                )]
                let number = number as u64;
                events = number;
            }
            // cargo passes `--bench`.
            option if option.starts_with('-') => {}
            name => {
                let is_known = STORES.contains(&name) || PARTS.contains(&name);
                ensure!(is_known, "{name} is none of {STORES:?} and {PARTS:?}");
                selected.push(name.to_owned());
            }
        }
    }
    let selected = Selection(selected);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if selected.contains("embedded") {
            embedded::run(&selected, events).await?;
        }
        if selected.contains("mongodb") {
            mongodb::run(&selected, events).await?;
        }
        let measures_ingest = selected.contains("scans") || selected.contains("tails");
        if selected.contains("kafka") && measures_ingest {
            mongodb::run_behind_kafka(&selected, events).await?;
        }
        Ok(())
    })
}

/// How long the repetitions of one operation took, in ascending order.
struct Times(Vec<Duration>);

impl Times {
    /// Repeats an operation for about two seconds, up to 500 times, after a first one that is not
    /// measured unless it takes that long.
    async fn measure(mut work: impl AsyncFnMut() -> Result<()>) -> Result<Self> {
        let mut times = Vec::new();
        let began = Instant::now();
        work().await?;
        let first = began.elapsed();
        while times.len() < 500 && began.elapsed() < Duration::from_secs(2) {
            let began = Instant::now();
            work().await?;
            times.push(began.elapsed());
        }
        if times.is_empty() {
            times.push(first);
        }
        times.sort_unstable();
        Ok(Self(times))
    }

    fn p50(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    fn p99(&self) -> Duration {
        self.0[self.0.len() * 99 / 100]
    }
}

/// Prints the head of the table of [`row`].
fn head(store: &str, events: u64) {
    println!("\n{store}, {events} events\n");
    println!("| work | p50 | p99 | limit, p50 | of the limit | goal |");
    println!("|---|---|---|---|---|---|");
}

fn row(work: &str, ours: &Times, limit: &Times, goal: &str) {
    let ratio = ours.p50().as_secs_f64() / limit.p50().as_secs_f64();
    println!(
        "| {work} | {:.2?} | {:.2?} | {:.2?} | {ratio:.2} × | {goal} |",
        ours.p50(),
        ours.p99(),
        limit.p50()
    );
}
