//! Kafka and MongoDB for a person at a desk: starts them, says where they are, ends them on
//! Ctrl-C.

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use stack::Purpose;
use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Starts Apache Kafka and MongoDB, prints the variables that point the server at them, and
/// ends both on Ctrl-C, with all that they hold.
///
/// Where there is a docker engine, one of each comes from there and stays up after Ctrl-C
/// (`docker compose down` ends it); three are always local processes.
#[derive(Debug, Parser)]
struct Args {
    /// How many Kafka brokers.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    brokers: String,
    /// How many members of MongoDB's replica set.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    members: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Before the start: Ctrl-C in the middle of it ends everything as well.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        stack = serve(&args) => stack,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
    // Leaving drops the clusters or, where they are shared, closes the pipes that their
    // watchdogs read from: either way they end with us.
}

async fn serve(args: &Args) -> Result<()> {
    writeln!(std::io::stderr(), "starting Kafka and MongoDB; the first time downloads them")?;
    // Held until we are told to leave.
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
        return Ok((Kafka::shared_with(Purpose::Figures).await?.bootstrap().to_owned(), None));
    }
    let kafka = Kafka::start(KafkaOptions::three().purpose(Purpose::Figures)).await?;
    Ok((kafka.bootstrap().to_owned(), Some(kafka)))
}

async fn mongo(members: &str) -> Result<(String, Option<Mongo>)> {
    if members == "1" {
        return Ok((Mongo::shared_with(Purpose::Figures).await?.uri().to_owned(), None));
    }
    let mongo = Mongo::start(MongoOptions::three().purpose(Purpose::Figures)).await?;
    Ok((mongo.uri().to_owned(), Some(mongo)))
}
