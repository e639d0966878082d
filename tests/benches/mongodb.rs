//! Compares storing bulks through the repository with the driver's own `insert_many`, and measures
//! queries, on the same MongoDB.
//!
//! `cargo bench -p eyego-log-tests --bench mongodb [-- store|query]`

#![expect(clippy::print_stdout, reason = "prints figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::{DateTime, RawDocumentBuf, doc, serialize_to_bson};
use anyhow::{Context as _, Result, ensure};
use eyego_log_core::query::MetadataFilter;
use eyego_log_core::{Action, LogEntry, LogId, LogQuery, Metadata, Timestamp, UserId};
use eyego_log_server::application::read_budget::ReadBudget;
use eyego_log_server::domain::health::PartState;
use eyego_log_server::domain::repository::LogRepository as _;
use eyego_log_server::infrastructure::repository::mongodb::{
    MongoConnection, MongoOptions, MongoRepository,
};
use stack::mongodb::{Mongo, MongoOptions as StackOptions};
use stack::process::{cpu_seconds, own_cpu_seconds};
use stack::{Purpose, eventually};

const BULK: u32 = 1000;
const BULKS: u32 = 300;
const CONCURRENCY: usize = 4;

fn main() -> Result<()> {
    let selected: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_selected =
        |name: &str| selected.is_empty() || selected.iter().any(|selected| selected == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if is_selected("store") {
            store().await?;
            insert_many().await?;
        }
        if is_selected("query") {
            query().await?;
        }
        Ok(())
    })
}

async fn start() -> Result<(Mongo, MongoRepository)> {
    let mongo = Mongo::start(StackOptions::default().purpose(Purpose::Benchmarks)).await?;
    let connection = MongoConnection::start(MongoOptions {
        uri: mongo.uri().to_owned(),
        database: "bench".to_owned(),
        collection: "logs".to_owned(),
        create_indexes: true,
    })?;
    let repository = MongoRepository::new(connection);
    eventually("the indexes to be created", Duration::from_secs(30), async || {
        let state = repository.health().state;
        ensure!(state == PartState::Up, "{state:?}");
        Ok(())
    })
    .await?;
    Ok((mongo, repository))
}

fn bulk(bulk: u32) -> Result<Vec<LogEntry>> {
    let entry = |n: u32| {
        let metadata = format!(
            r#"{{"page":"/products/{n}","referrer":"https://example.com/search?q=shoes",
            "duration":{n},"ratio":0.25,"cart":{{"items":[1,2,3],"total":99.5}},"vip":true}}"#
        );
        let mut id = [0x68; 12];
        id[8..].copy_from_slice(&n.to_be_bytes());
        let mut entry = LogEntry::new(
            LogId::from_bytes(id),
            UserId::from_stored(format!("user-{}", n % 1000)).context("userId")?,
            Action::from_stored("CLICK_BUTTON").context("action")?,
            Timestamp::from_millis(n.into()).context("timestamp")?,
            Metadata::from_json(metadata)?,
        );
        entry.received_at = Timestamp::from_millis(1_768_435_085_442);
        Ok(entry)
    };
    (bulk * BULK..(bulk + 1) * BULK).map(entry).collect()
}

/// Calls `insert` for each bulk, some concurrently, and prints the rate and the CPU time.
async fn measure<T, Insert, Inserted>(
    what: &str,
    mongo: &Mongo,
    bulks: Vec<T>,
    insert: Insert,
) -> Result<()>
where
    T: Send + Sync + 'static,
    Insert: Fn(Arc<Vec<T>>, usize) -> Inserted + Clone + Send + 'static,
    Inserted: Future<Output = Result<()>> + Send,
{
    let bulks = Arc::new(bulks);
    let mongod = mongo.pid(0)?;
    let (began, before) = (Instant::now(), (own_cpu_seconds()?, cpu_seconds(mongod)?));
    let tasks: Vec<_> = (0..CONCURRENCY)
        .map(|task| {
            let (bulks, insert) = (Arc::clone(&bulks), insert.clone());
            tokio::spawn(async move {
                for n in (task..bulks.len()).step_by(CONCURRENCY) {
                    insert(Arc::clone(&bulks), n).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let millions = f64::from(BULK * BULKS) / 1e6;
    println!(
        "{what}: {:.0}/s; {:.2} CPU-s/M of the client, {:.2} CPU-s/M of mongod",
        millions * 1e6 / began.elapsed().as_secs_f64(),
        (own_cpu_seconds()? - before.0) / millions,
        (cpu_seconds(mongod)? - before.1) / millions,
    );
    Ok(())
}

async fn store() -> Result<()> {
    let (mongo, repository) = start().await?;
    let bulks = (0..BULKS).map(bulk).collect::<Result<_>>()?;
    measure("store", &mongo, bulks, move |bulks: Arc<Vec<Vec<LogEntry>>>, n| {
        let repository = repository.clone();
        async move {
            repository.store(&bulks[n]).await?;
            Ok(())
        }
    })
    .await
}

/// Measures the driver's `insert_many`, with documents that are BSON already.
async fn insert_many() -> Result<()> {
    let (mongo, _repository) = start().await?;
    let raw = |entry: &LogEntry| {
        let at = DateTime::from_millis(entry.timestamp.as_millis());
        Ok(RawDocumentBuf::try_from(&doc! {
            "_id": ObjectId::from_bytes(*entry.id.as_bytes()),
            "userId": entry.user_id.as_str(), "action": entry.action.as_str(), "timestamp": at,
            "metadata": serialize_to_bson(&entry.metadata.to_map())?, "receivedAt": at,
        })?)
    };
    let bulks = (0..BULKS)
        .map(|n| bulk(n)?.iter().map(raw).collect::<Result<Vec<_>>>())
        .collect::<Result<_>>()?;
    let client = Client::with_uri_str(mongo.uri()).await?;
    let logs = client.database("bench").collection::<RawDocumentBuf>("logs");
    measure("insert_many", &mongo, bulks, move |bulks: Arc<Vec<Vec<RawDocumentBuf>>>, n| {
        let logs = logs.clone();
        async move {
            logs.insert_many(&bulks[n]).ordered(false).await?;
            Ok(())
        }
    })
    .await
}

async fn query() -> Result<()> {
    let (_mongo, repository) = start().await?;
    for n in 0..BULKS {
        repository.store(&bulk(n)?).await?;
    }
    let of_user = LogQuery { user_id: Some("user-77".to_owned()), ..LogQuery::default() };
    let budget = ReadBudget::new(1 << 30);
    let filter = |path: &str| MetadataFilter::new(path, "-").into_iter().collect();
    for (what, query) in [
        ("latest 50 of a user", LogQuery { limit: 50, ..of_user.clone() }),
        ("latest 1000 of all", LogQuery { limit: 1000, ..LogQuery::default() }),
        ("a key, of a user", LogQuery { metadata: filter("page"), ..of_user.clone() }),
        ("a path, of a user", LogQuery { metadata: filter("cart.total"), ..of_user }),
        ("a key, of all", LogQuery { metadata: filter("page"), ..LogQuery::default() }),
        ("a path, of all", LogQuery { metadata: filter("cart.total"), ..LogQuery::default() }),
    ] {
        let mut times = Vec::new();
        for _ in 0..if what.ends_with("user") { 200 } else { 5 } {
            let began = Instant::now();
            repository.find(&query, budget.start()?).await?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        println!("{what}: p50 {:?}, max {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
    Ok(())
}
