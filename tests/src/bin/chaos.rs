//! Puts a whole stack under load and faults, and then checks that each acknowledged event is stored
//! exactly once.
//!
//! `cargo run --release -p eyego-log-tests --bin chaos -- --events 1000000 --seed 7`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use stack::chaos::{Journal, Options, run};

/// Starts three brokers, three mongods, two APIs and three workers, sends events with retries while
/// a seeded plan kills, freezes, stops and disconnects them, and then compares what is stored with
/// what was acknowledged. Exits with 0 only if there are no violations.
#[derive(Debug, Parser)]
struct Cli {
    /// The number of events to send.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// The random seed: the same seed gives the same plan and the same events.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The most events per second. Default: no limit.
    #[arg(long)]
    rate: Option<u64>,
    /// Runs the APIs without their spool of 1 MiB.
    #[arg(long)]
    no_spool: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { events, seed, rate, no_spool } = Cli::parse();
    let journal = Arc::new(Journal::new(true));
    let violations = run(&Options { events, seed, rate, has_spool: !no_spool }, &journal).await?;
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
