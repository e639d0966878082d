//! Sends the worst inputs known to a server, and prints what each costs, as a table.
//!
//! `cargo run --release -p eyego-log-tests --bin worst_inputs`

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use stack::hostile::{exchange, worst_inputs};
use stack::server::Server;

/// Starts a server with its default settings, sends each input several times, and prints the CPU time
/// of the server per request and per 64 KiB of (decompressed) body or query, and the size of the
/// response.
#[derive(Debug, Parser)]
struct Cli {
    /// The time for each input, in milliseconds.
    #[arg(long, default_value_t = 500)]
    millis: u64,
    /// Sends only inputs whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "figures for a person")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let server = Server::builder().start().await?;
    server.wait_ready(Duration::from_secs(20)).await?;
    println!("| input | sent | size | status | response | CPU | CPU per 64 KiB |");
    println!("|---|---|---|---|---|---|---|");
    for input in worst_inputs().into_iter().filter(|input| input.name.contains(&cli.only)) {
        let bytes = input.request.to_bytes();
        let mut requests = 0;
        let start = Instant::now();
        let before = server.cpu_seconds()?;
        let mut last = exchange(server.address(), &bytes).await?;
        while start.elapsed() < Duration::from_millis(cli.millis) {
            last = exchange(server.address(), &bytes).await?;
            requests += 1;
        }
        let cpu = (server.cpu_seconds()? - before) * 1000.0 / f64::from(requests + 1);
        let units = (input.size as f64 / f64::from(64 << 10)).max(1.0);
        println!(
            "| {} | {} | {} | {} | {} | {cpu:.2} ms | {:.2} ms |",
            input.name,
            bytes.len(),
            input.size,
            last.status,
            last.body.len(),
            cpu / units
        );
    }
    Ok(())
}
