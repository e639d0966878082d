//! Puts a whole stack under load and faults, and then looks for each acknowledged event.
//!
//! `cargo run --release -p eyego-log-tests --bin chaos -- --events 1000000 --seed 7`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use stack::chaos::{Journal, Options, run};

/// Starts three brokers, three mongods, two apis and three workers, sends events with retries while
/// a seeded plan kills, freezes, stops and cuts off all of these, and then holds what is stored
/// against what was acknowledged. Ends with 0 only if that is clean.
#[derive(Debug, Parser)]
struct Cli {
    /// How many events are sent.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Decides what happens and what is sent: the same seed is the same plan.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Events in a second at most; without it as many as are taken.
    #[arg(long)]
    rate: Option<u64>,
    /// Does without the spool of 1 MiB that each api has otherwise.
    #[arg(long)]
    no_spool: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { events, seed, rate, no_spool } = Cli::parse();
    let journal = Arc::new(Journal::new(true));
    let complaints = run(&Options { events, seed, rate, has_spool: !no_spool }, &journal).await?;
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
