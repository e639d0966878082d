//! MongoDB through the port, and through its own driver.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mongodb::bson::{Document, RawDocumentBuf, doc};
use ::mongodb::options::Hint;
use ::mongodb::{Client, Collection, IndexModel};
use anyhow::{Result, ensure};
use eyego_log_server::domain::health::PartState;
use eyego_log_server::domain::repository::LogRepository as _;
use eyego_log_server::infrastructure::repository::mongodb::{
    MongoConnection, MongoOptions, MongoRepository,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use stack::kafka::Kafka;
use stack::mongodb::{Mongo, MongoOptions as StackOptions};
use stack::server::{Server, ServerBuilder};
use stack::{Purpose, eventually};

use crate::data::{self, BUSY_USER, NEVER_DONE, RARE};
use crate::queries::{self, Driver, FINDS, Find, Measured};
use crate::{Selection, head, server, tails};

const DATABASE: &str = "bench";

/// A broker reaches its speed after about 45 s of load.
const KAFKA_WARM_UP: Duration = Duration::from_secs(45);

pub(crate) async fn run(selected: &Selection, events: u64) -> Result<()> {
    let (mongo, connection, repository) = filled(events).await?;
    let measured = match selected.contains("queries") {
        true => Some(queries::measure(&repository).await?),
        false => None,
    };
    // The repository would drop an ideal index that has the name of an index of an earlier version.
    connection.shutdown(Instant::now() + Duration::from_secs(10)).await;
    let client = Client::with_uri_str(mongo.uri()).await?;
    let logs: Collection<Document> = client.database(DATABASE).collection("logs");
    if let Some(measured) = measured {
        compare(measured, &logs, events).await?;
    }

    let running = server_of(&mongo).start().await?;
    running.wait_ready(Duration::from_secs(30)).await?;
    if selected.contains("export") {
        let handle = tokio::runtime::Handle::current();
        server::export(&running, events, |mut socket| {
            handle.block_on(async {
                let all = logs.clone_with_type::<RawDocumentBuf>();
                let mut cursor =
                    all.find(doc! {}).sort(doc! { "timestamp": -1, "_id": -1 }).await?;
                while cursor.advance().await? {
                    socket.write_all(cursor.current().as_bytes())?;
                }
                Ok(())
            })
        })
        .await?;
    }
    if selected.contains("delay") {
        tails::delay(&running).await?;
    }
    server::ingest_beside_readers(selected, &running).await?;
    drop(running);
    if selected.contains("memory") {
        tails::memory(server_of(&mongo)).await?;
    }
    Ok(())
}

/// Measures ingest to Kafka beside readers of MongoDB, into which the same server stores.
pub(crate) async fn run_behind_kafka(selected: &Selection, events: u64) -> Result<()> {
    let kafka = Kafka::shared_with(Purpose::Benchmarks).await?;
    let (mongo, connection, _) = filled(events).await?;
    connection.shutdown(Instant::now() + Duration::from_secs(10)).await;
    let running = server_of(&mongo)
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_KAFKA_TOPIC", stack::unique("bench"))
        .start()
        .await?;
    server::warm_up(&running, KAFKA_WARM_UP).await?;
    server::ingest_beside_readers(selected, &running).await
}

/// Starts MongoDB and stores the events.
async fn filled(events: u64) -> Result<(Mongo, Arc<MongoConnection>, MongoRepository)> {
    let mongo = Mongo::start(StackOptions::default().purpose(Purpose::Benchmarks)).await?;
    let connection = MongoConnection::start(MongoOptions {
        uri: mongo.uri().to_owned(),
        database: DATABASE.to_owned(),
        collection: "logs".to_owned(),
        create_indexes: true,
    })?;
    let repository = MongoRepository::new(connection.clone());
    eventually("the indexes to be created", Duration::from_secs(60), async || {
        let state = repository.health().state;
        ensure!(state == PartState::Up, "{state:?}");
        Ok(())
    })
    .await?;
    let began = Instant::now();
    let stored = futures_util::stream::iter(data::bulks(events, 1_000)).map(|bulk| {
        let repository = repository.clone();
        async move { anyhow::Ok(repository.store(&bulk?).await?) }
    });
    stored.buffer_unordered(4).try_for_each(|_| async { Ok(()) }).await?;
    println!("stored {:.0}/s", events as f64 / began.elapsed().as_secs_f64());
    Ok((mongo, connection, repository))
}

fn server_of(mongo: &Mongo) -> ServerBuilder {
    Server::builder().env("EYEGO_MONGODB_URI", mongo.uri()).env("EYEGO_MONGODB_DATABASE", DATABASE)
}

/// Compares queries with the same ones through the driver, with the ideal indexes.
async fn compare(measured: Measured, logs: &Collection<Document>, events: u64) -> Result<()> {
    head("MongoDB", events);
    for find in FINDS {
        logs.create_index(IndexModel::builder().keys(ideal(find).0).build()).await?;
    }
    queries::compare(measured, &mut MongoDb(logs.clone())).await?;
    for find in FINDS {
        let name: Vec<_> = ideal(find).0.iter().map(|(k, v)| format!("{k}_{v}")).collect();
        logs.drop_index(name.join("_")).await?;
    }
    Ok(())
}

struct MongoDb(Collection<Document>);

/// Returns the keys of the ideal index and the filter.
fn ideal(find: Find) -> (Document, Document) {
    match find {
        Find::LatestOfUser => {
            (doc! { "userId": 1, "timestamp": -1, "_id": -1 }, doc! { "userId": "user-77" })
        }
        Find::RareAction => {
            (doc! { "action": 1, "timestamp": -1, "_id": -1 }, doc! { "action": RARE })
        }
        Find::NeverDone => (
            doc! { "userId": 1, "action": 1, "timestamp": -1, "_id": -1 },
            doc! { "userId": BUSY_USER, "action": NEVER_DONE },
        ),
    }
}

impl MongoDb {
    async fn group(&self, group: Document) -> Result<()> {
        let results = self.0.aggregate([doc! { "$group": group }]).await?;
        let results: Vec<Document> = results.try_collect().await?;
        ensure!(!results.is_empty(), "nothing was counted");
        Ok(())
    }
}

impl Driver for MongoDb {
    async fn find(&mut self, find: Find) -> Result<usize> {
        let (keys, filter) = ideal(find);
        let found = self.0.find(filter).sort(doc! { "timestamp": -1, "_id": -1 }).limit(50);
        let found: Vec<Document> = found.hint(Hint::Keys(keys)).await?.try_collect().await?;
        Ok(found.len())
    }

    async fn counts(&mut self) -> Result<()> {
        let hour = doc! { "$dateTrunc": { "date": "$timestamp", "unit": "hour" } };
        self.group(doc! { "_id": { "hour": hour, "action": "$action" }, "n": { "$sum": 1 } }).await
    }

    async fn users(&mut self) -> Result<()> {
        self.group(doc! { "_id": "$action", "users": { "$addToSet": "$userId" } }).await
    }
}
