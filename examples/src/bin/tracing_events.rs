//! Prints all `tracing` events and logs the marked ones.

use anyhow::{Result, ensure};
use eyego_log_client::Client;
use eyego_log_client::tracing::TracingLayer;
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env()?;
    tracing_subscriber::registry()
        .with(tracing_subscriber::filter::LevelFilter::INFO)
        .with(tracing_subscriber::fmt::layer())
        .with(TracingLayer::new(client.clone()))
        .init();

    tracing::info!("started: not logged, because there is no user and action");
    tracing::info!(userId = "user-123", action = "SEARCH", query = "shoes", hits = 42, "searched");
    tracing::info!(user_id = 7, action = "LOGIN");

    let report = client.shutdown().await;
    ensure!(report.stats.delivered == 2, "{report:?}");
    Ok(())
}
