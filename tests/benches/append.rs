//! Compares the queues with the engines under them, in the same run.
//!
//! `cargo bench -p eyego-log-tests --bench append [-- embedded|kafka]`
#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "prints figures")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::domain::record_batch::RecordBatch;
use eyego_log_server::infrastructure::embedded::DataDir;
use eyego_log_server::infrastructure::queue::kafka::KafkaQueue;
use eyego_log_server::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use stack::kafka::{Kafka, queue_options};
use stack::load::event;
use stack::{Purpose, eventually};

const CALLERS: usize = 64;
/// Short rounds that alternate with the limit, because the disk of a shared machine is slow at times.
/// The result is the median of the ratios.
const DURATION: Duration = Duration::from_secs(2);
const ROUNDS: usize = 9;

/// Prepared keys and values, so that only appending is measured.
type Records = LazyLock<Vec<(String, String)>>;

static EVENTS: Records =
    LazyLock::new(|| (0..10_000).map(|n| (format!("user-{n}"), event(n))).collect());

/// Events that are less similar to one another, because the embedded queue compresses its chunks.
static SESSIONS: Records = LazyLock::new(|| {
    let with_session = |n| {
        let random = || fastrand::u64(..);
        let session = format!(r#"{{"session":"{:016x}{:016x}","#, random(), random());
        (format!("user-{n}"), event(n).replacen(r#"{"page""#, &(session + r#""page""#), 1))
    };
    (0..10_000).map(with_session).collect()
});

fn record(records: &'static Records, n: u64) -> (&'static str, &'static [u8]) {
    let (key, value) = &records[usize::try_from(n).unwrap_or(0) % records.len()];
    (key, value.as_bytes())
}

fn main() -> Result<()> {
    let selected: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_selected =
        |name: &str| selected.is_empty() || selected.iter().any(|selected| selected == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if is_selected("embedded") {
            embedded("events", &EVENTS).await?;
            embedded("events with a random session", &SESSIONS).await?;
        }
        if is_selected("kafka") {
            kafka().await?;
        }
        Ok(())
    })
}

/// Measures 64 callers with one record per call, and a bare loop that commits 64 rows at a time.
async fn embedded(what: &str, records: &'static Records) -> Result<()> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let limit = tokio::task::spawn_blocking(|| bare_group_commit(records)).await??;
        let dir = tempfile::tempdir()?;
        let data_dir = DataDir::open(dir.path())?;
        let queue = SqliteQueue::open(&data_dir, SqliteQueueOptions::default())?;
        let rate = appends_per_second(queue, records, 1).await?;
        rates.push((rate, limit));
    }
    let what = format!("embedded, 64 callers x 1, {what}");
    report(&what, "a bare group commit of 64", rates);
    Ok(())
}

fn report(what: &str, limit: &str, mut rates: Vec<(f64, f64)>) {
    rates.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    for (rate, limit) in &rates {
        println!("  {rate:.0}/s of {limit:.0}/s: {:.0} %", rate / limit * 100.0);
    }
    let (rate, of) = rates[rates.len() / 2];
    println!("{what}: {:.0} % of {limit} (median of {})", rate / of * 100.0, rates.len());
}

fn bare_group_commit(records: &'static Records) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let connection = rusqlite::Connection::open(dir.path().join("bare.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE records (offset INTEGER PRIMARY KEY, queued_at INTEGER NOT NULL, value BLOB NOT NULL)",
    )?;
    let mut insert =
        connection.prepare("INSERT INTO records (queued_at, value) VALUES (?1, ?2)")?;
    let start = Instant::now();
    let mut rows = 0_u64;
    while start.elapsed() < DURATION {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..CALLERS {
            insert.execute((rows.cast_signed(), record(records, rows).1))?;
            rows += 1;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(rows as f64 / start.elapsed().as_secs_f64())
}

async fn appends_per_second(
    queue: Arc<dyn LogQueue>,
    records: &'static Records,
    batch_records: u64,
) -> Result<f64> {
    let count = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (queue, count) = (Arc::clone(&queue), Arc::clone(&count));
            tokio::spawn(async move {
                while start.elapsed() < DURATION {
                    // The capacity that ingest uses.
                    let room = usize::try_from(batch_records)?;
                    let mut batch = RecordBatch::with_capacity(room * 400, room);
                    for _ in 0..batch_records {
                        let (key, value) = record(records, count.fetch_add(1, Ordering::Relaxed));
                        batch.push_encoded(key.as_bytes(), value);
                    }
                    for result in queue.append(batch).await {
                        result?;
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// Measures 64 callers with batches of 500, and librdkafka alone at its highest rate.
async fn kafka() -> Result<()> {
    let brokers = Kafka::shared_with(Purpose::Benchmarks).await?.bootstrap().to_owned();
    let topic = stack::unique("bench");
    let queue = KafkaQueue::start(queue_options(&brokers, &topic, &topic))?;
    eventually("an append to succeed", Duration::from_secs(20), async || {
        let mut batch = RecordBatch::default();
        batch.push_encoded(b"user", b"{}");
        let results = queue.append(batch).await;
        ensure!(results.iter().all(Result::is_ok), "{:?}", queue.health());
        Ok(())
    })
    .await?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let (brokers, topic) = (brokers.clone(), topic.clone());
        let limit = tokio::task::spawn_blocking(move || bare_producer(&brokers, &topic)).await??;
        let queue = Arc::clone(&queue) as Arc<dyn LogQueue>;
        let rate = appends_per_second(queue, &EVENTS, 500).await?;
        rates.push((rate, limit));
    }
    report("kafka, 64 callers x 500", "librdkafka alone", rates);
    Ok(())
}

fn bare_producer(brokers: &str, topic: &str) -> Result<f64> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "131072")
        .create()?;
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < DURATION {
        let (key, value) = record(&EVENTS, sent);
        match producer.send(BaseRecord::to(topic).key(key).payload(value)) {
            Ok(()) => sent += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error).context("the bare producer failed"),
        }
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}
