//! Starts Kafka and MongoDB for manual use, prints their addresses and stops them on Ctrl-C.

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use stack::Purpose;
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Starts Apache Kafka and MongoDB, prints the environment variables for the server, and stops
/// both on Ctrl-C. Their data is removed.
///
/// If a Docker engine is available, a single broker or member runs there and stays up after Ctrl-C
/// (`docker compose down` stops it). Three are always local processes.
#[derive(Debug, Parser)]
struct Args {
    /// The number of Kafka brokers.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    brokers: String,
    /// The number of members of MongoDB's replica set.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    members: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Registered before the start, so that Ctrl-C during it stops everything as well.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        stack = serve(&args) => stack,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
    // Private clusters are dropped here, and the watchdogs stop shared ones when this process ends.
}

async fn serve(args: &Args) -> Result<()> {
    writeln!(std::io::stderr(), "starting Kafka and MongoDB; the first start downloads them")?;
    // Kept until the process is interrupted.
    let ((brokers, _kafka), (uri, _mongo)) =
        tokio::try_join!(kafka(&args.brokers), mongo(&args.members))?;
    let mut out = std::io::stdout();
    writeln!(out, "export EYEGO_KAFKA_BROKERS='{brokers}'")?;
    writeln!(out, "export EYEGO_MONGODB_URI='{uri}'")?;
    out.flush()?;
    writeln!(std::io::stderr(), "running until Ctrl-C")?;
    std::future::pending().await
}

async fn kafka(brokers: &str) -> Result<(String, Option<Kafka>)> {
    if brokers == "1" {
        return Ok((Kafka::shared_with(Purpose::Benchmarks).await?.bootstrap().to_owned(), None));
    }
    let kafka = Kafka::start(KafkaOptions::three().purpose(Purpose::Benchmarks)).await?;
    Ok((kafka.bootstrap().to_owned(), Some(kafka)))
}

async fn mongo(members: &str) -> Result<(String, Option<Mongo>)> {
    if members == "1" {
        return Ok((Mongo::shared_with(Purpose::Benchmarks).await?.uri().to_owned(), None));
    }
    let mongo = Mongo::start(MongoOptions::three().purpose(Purpose::Benchmarks)).await?;
    Ok((mongo.uri().to_owned(), Some(mongo)))
}
