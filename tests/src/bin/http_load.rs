//! Loads a running server with events of about 200 bytes, and prints rate and latencies.
//!
//! `cargo run --release -p eyego-log-tests --bin http_load -- --seconds 10 --connections 128`

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use stack::load::{Load, ndjson_requests, single_requests};

/// Loads a server with events.
#[derive(Debug, Parser)]
struct Cli {
    /// The server's address.
    #[arg(long, default_value = "127.0.0.1:3000")]
    address: SocketAddr,
    /// The number of connections, each with one request in flight.
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// The duration, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Events per request. Values above 1 send NDJSON batches.
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Requests per second, evenly spaced. Default: each connection sends as soon as it can.
    #[arg(long)]
    rate: Option<u64>,
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures for a person")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let request = if cli.batch > 1 { ndjson_requests(cli.batch) } else { single_requests() };
    let load = Load {
        address: cli.address,
        connections: cli.connections,
        duration: Duration::from_secs(cli.seconds),
        request,
        rate: cli.rate,
    };
    let outcome = load.run().await?;
    println!(
        "{:.0} events/s, p50 {:?}, p99 {:?}, {} times 503, {} other responses, {} broken connections",
        outcome.rate() * cli.batch as f64,
        outcome.percentile(0.5),
        outcome.percentile(0.99),
        outcome.unavailable,
        outcome.others,
        outcome.broken
    );
    Ok(())
}
