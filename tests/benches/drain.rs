//! Compares the worker, from Kafka to MongoDB, with a raw unordered `insert_many` of the same number
//! of documents into a collection with the same indexes, in the same run.
//!
//! `cargo bench -p eyego-log-tests --bench drain [-- EVENTS]`
#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bson::oid::ObjectId;
use bson::{DateTime, Document, doc};
use eyego_log_core::{IngestRequest, LogIdGenerator, Timestamp};
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::domain::record_batch::RecordBatch;
use eyego_log_server::infrastructure::queue::kafka::KafkaQueue;
use mongodb::options::{IndexOptions, WriteConcern};
use mongodb::{Client, Collection, IndexModel};
use stack::kafka::{Kafka, queue_options};
use stack::load::event;
use stack::process::own_cpu_seconds;
use stack::server::Server;
use stack::{Purpose, eventually};

const BULK: u64 = 1000;
const CONCURRENCY: u64 = 4;

fn main() -> Result<()> {
    let events = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(400_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(events))
}

async fn run(events: u64) -> Result<()> {
    let mongo = stack::mongodb::Mongo::shared_with(Purpose::Benchmarks).await?;
    let client = Client::with_uri_str(mongo.uri()).await?;
    let database = stack::unique("bench");
    let topic = stack::unique("bench");
    fill(&topic, events).await?;

    let limit = raw_insert(&client.database(&database).collection("raw"), events).await?;
    println!("raw insert_many: {:.0}/s, {:.1} CPU-s/M of the client", limit.rate, limit.cpu);
    let drained = drain(&client, &database, &topic, events).await?;
    println!(
        "the worker: {:.0}/s, {:.0} % of that, {:.1} CPU-s/M of the server",
        drained.rate,
        drained.rate / limit.rate * 100.0,
        drained.cpu
    );
    Ok(())
}

struct Figure {
    rate: f64,
    cpu: f64,
}

async fn fill(topic: &str, events: u64) -> Result<()> {
    let kafka = Kafka::shared_with(Purpose::Benchmarks).await?;
    let queue = KafkaQueue::start(queue_options(kafka.bootstrap(), topic, topic))?;
    let ids = LogIdGenerator::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut sent = 0;
    while sent < events {
        let now = Timestamp::from(std::time::SystemTime::now());
        let mut batch = RecordBatch::default();
        for n in sent..sent + BULK {
            let request = IngestRequest::parse(event(n).as_bytes(), now)?;
            batch.push(&request.into_entry(ids.generate(now), now));
        }
        if queue.append(batch).await.iter().all(Result::is_ok) {
            sent += BULK;
        } else {
            ensure!(Instant::now() < deadline, "{:?}", queue.health());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    queue.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

async fn index(collection: &Collection<Document>) -> Result<()> {
    for keys in [
        doc! {"userId": 1, "timestamp": -1, "_id": -1, "action": 1},
        doc! {"timestamp": -1, "_id": -1, "action": 1, "userId": 1},
        doc! {"action": 1, "timestamp": -1, "_id": -1, "userId": 1},
    ] {
        let model = IndexModel::builder().keys(keys).options(IndexOptions::default()).build();
        collection.create_index(model).await?;
    }
    Ok(())
}

async fn raw_insert(collection: &Collection<Document>, events: u64) -> Result<Figure> {
    index(collection).await?;
    let (before, start) = (own_cpu_seconds()?, Instant::now());
    let tasks: Vec<_> = (0..CONCURRENCY)
        .map(|task| {
            let collection = collection.clone();
            tokio::spawn(async move {
                for bulk in (task..events / BULK).step_by(usize::try_from(CONCURRENCY)?) {
                    let documents: Vec<_> = (0..BULK).map(|n| document(bulk * BULK + n)).collect();
                    collection
                        .insert_many(documents)
                        .ordered(false)
                        .write_concern(WriteConcern::majority())
                        .await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let rate = events as f64 / start.elapsed().as_secs_f64();
    Ok(Figure { rate, cpu: (own_cpu_seconds()? - before) / events as f64 * 1e6 })
}

fn document(n: u64) -> Document {
    let user = format!("user-{}", n % 10_000);
    doc! {
        "_id": ObjectId::new(), "userId": user, "action": "CLICK_BUTTON", "timestamp": DateTime::now(),
        "metadata": {
            "page": "home", "browser": "chrome", "n": n.cast_signed(),
            "referrer": "https://example.com/a/b", "width": 1920, "tags": ["a", "b"], "ratio": 0.75,
        },
        "receivedAt": DateTime::now(),
    }
}

async fn drain(client: &Client, database: &str, topic: &str, events: u64) -> Result<Figure> {
    let collection: Collection<Document> = client.database(database).collection("logs");
    let server = Server::builder()
        .env("EYEGO_ROLE", "worker")
        .env("EYEGO_KAFKA_BROKERS", Kafka::shared_with(Purpose::Benchmarks).await?.bootstrap())
        .env("EYEGO_KAFKA_TOPIC", topic)
        .env("EYEGO_KAFKA_GROUP", topic)
        .env(
            "EYEGO_MONGODB_URI",
            stack::mongodb::Mongo::shared_with(Purpose::Benchmarks).await?.uri(),
        )
        .env("EYEGO_MONGODB_DATABASE", database)
        .start()
        .await?;
    let timeout = Duration::from_secs(300);
    let at_start = eventually("the first document", timeout, async || {
        let stored = collection.estimated_document_count().await?;
        ensure!(stored > 0, "nothing is stored");
        Ok(stored)
    })
    .await?;
    let (start, cpu) = (Instant::now(), server.cpu_seconds()?);
    eventually("all documents", timeout, async || {
        let stored = collection.estimated_document_count().await?;
        ensure!(stored >= events, "{stored} of {events} are stored: {}", server.log());
        Ok(())
    })
    .await?;
    let elapsed = start.elapsed().as_secs_f64();
    ensure!(
        collection.count_documents(doc! {}).await? == events,
        "more documents are stored than events were sent"
    );
    let stored = (events - at_start) as f64;
    Ok(Figure { rate: stored / elapsed, cpu: (server.cpu_seconds()? - cpu) / stored * 1e6 })
}
