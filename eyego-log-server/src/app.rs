//! The composition root: builds the adapters that the configuration selects and
//! hands them to the use cases. No other module names a concrete adapter.
//!
//! `lifecycle` serves until a signal arrives and stops everything in order.

mod access;
pub mod keys;
mod lifecycle;
mod listeners;
mod process;
mod reload;
mod removal;
mod runtimes;
mod signals;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use self::runtimes::RuntimePool;
use self::worker::Worker;
use crate::application::dead_letters::DeadLetterService;
use crate::application::ingest::{Budget, Ingest, IngestLimits};
use crate::application::persist::{Persist, PersistOptions, WorkerStatus};
use crate::application::read_budget::ReadBudget;
use crate::application::removal::{ErasureService, GuardedStore, Tombstones};
use crate::application::tail::Tails;
use crate::config::{Config, MongoDbConfig, Properties, Secret};
use crate::domain::dead_letter::DeadLetters;
use crate::domain::erasure::Erasures;
use crate::domain::queue::LogQueue;
use crate::domain::removal::LogRemoval;
use crate::domain::repository::LogRepository;
use crate::domain::retention::Retention;
use crate::domain::tail::LogTail;
use crate::infrastructure::embedded::DataDir;
use crate::infrastructure::queue::kafka::{KafkaOptions, KafkaQueue};
use crate::infrastructure::queue::spool::SpooledQueue;
use crate::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use crate::infrastructure::repository::mongodb::{
    MongoConnection, MongoDeadLetters, MongoErasures, MongoOptions, MongoRepository, MongoTail,
};
use crate::infrastructure::repository::sqlite::{
    SqliteDeadLetters, SqliteErasures, SqliteRepository, SqliteStore,
};
use crate::interface::http::{Api, BodyLimits, HeavyWork, Streams};
use crate::telemetry::Logging;

/// Limit for an append to the spool. Together with the second that Kafka gets
/// first, it stays below the API's limit of 8 s for ingest.
const SPOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Topic name in the positions of events from the embedded queue.
const EMBEDDED_TOPIC: &str = "embedded";

/// Serves until the process receives a signal to stop.
///
/// # Errors
/// Returns an error if the server cannot start, for example because the address
/// or the data directory is in use.
pub fn run(config: Config, logging: &Logging) -> anyhow::Result<()> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let main = runtime("main")?;
    // Must outlive the connections, which are registered with its I/O drivers.
    let http = RuntimePool::start().context("cannot start the HTTP runtimes")?;
    // Decoding and encoding a bulk takes milliseconds, which would delay
    // requests on the same threads (ADR 0017).
    let bulks = config.role.has_worker().then(|| runtime("bulks")).transpose()?;
    let bulk_runtime = bulks.as_ref().map(Runtime::handle);
    let result = main.block_on(lifecycle::serve(config, &http, bulk_runtime, logging));
    // A database call that hangs must not keep the process alive.
    for runtime in [Some(main), bulks].into_iter().flatten() {
        runtime.shutdown_timeout(Duration::from_millis(100));
    }
    result
}

fn runtime(name: &str) -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the runtime for {name}"))
}

/// The adapters that the configuration selects.
struct Parts {
    queue: Arc<dyn LogQueue>,
    repository: Arc<dyn LogRepository>,
    tail: Arc<dyn LogTail>,
    dead_letters: Arc<dyn DeadLetters>,
    removal: Arc<dyn LogRemoval>,
    erasures: Arc<dyn Erasures>,
    retention: Arc<Retention>,
    tombstones: Arc<Tombstones>,
    store: Store,
}

/// The database behind the repository and the dead letters.
enum Store {
    Embedded(Arc<SqliteStore>),
    MongoDb(Arc<MongoConnection>),
}

impl Store {
    async fn close(&self, deadline: Instant) {
        match self {
            Self::Embedded(store) => store.close(deadline).await,
            Self::MongoDb(connection) => connection.shutdown(deadline).await,
        }
    }
}

impl Parts {
    fn build(config: &Config) -> anyhow::Result<Self> {
        // The embedded queue and store share one directory and its lock.
        let data_dir = match (&config.kafka.brokers, &config.mongodb.uri) {
            (Some(_), Some(_)) => None,
            _ => Some(open_data_dir("EYEGO_DATA_DIR", &config.embedded.data_dir)?),
        };
        let data_dir = || data_dir.as_ref().context("no data directory");
        let queue = match &config.kafka.brokers {
            Some(brokers) => kafka_queue(brokers, config)?,
            None => {
                let max_bytes = config.embedded.queue_max_bytes;
                let options = SqliteQueueOptions { max_bytes, ..SqliteQueueOptions::default() };
                SqliteQueue::open(data_dir()?, options)?
            }
        };
        let kept = &config.retention;
        let retention = Arc::new(Retention::new(kept.default, kept.by_action()));
        match &config.mongodb.uri {
            Some(uri) => {
                let connection = MongoConnection::start(mongo_options(uri, &config.mongodb))?;
                let repository = MongoRepository::new(Arc::clone(&connection));
                Ok(Self {
                    queue,
                    repository: Arc::new(repository.clone()),
                    tail: Arc::new(MongoTail::new(Arc::clone(&connection))),
                    dead_letters: Arc::new(MongoDeadLetters::new(Arc::clone(&connection))),
                    removal: Arc::new(repository),
                    erasures: Arc::new(MongoErasures::new(Arc::clone(&connection))),
                    retention,
                    tombstones: Arc::default(),
                    store: Store::MongoDb(connection),
                })
            }
            None => {
                let store = SqliteStore::open(data_dir()?)?;
                let repository = SqliteRepository::new(Arc::clone(&store));
                Ok(Self {
                    queue,
                    repository: Arc::new(repository.clone()),
                    tail: Arc::new(repository.clone()),
                    dead_letters: Arc::new(SqliteDeadLetters::new(Arc::clone(&store))),
                    removal: Arc::new(repository),
                    erasures: Arc::new(SqliteErasures::new(Arc::clone(&store))),
                    retention,
                    tombstones: Arc::default(),
                    store: Store::Embedded(store),
                })
            }
        }
    }

    fn guarded_store(&self) -> GuardedStore {
        GuardedStore::new(
            Arc::clone(&self.repository),
            Arc::clone(&self.tombstones),
            Arc::clone(&self.retention),
        )
    }

    fn api(&self, config: &Config, stop: watch::Receiver<bool>) -> Api {
        let limits = IngestLimits {
            max_event_bytes: config.http.max_event_bytes,
            max_batch_events: config.http.max_batch_events,
        };
        let budget = Budget::new(config.http.max_in_flight_bytes());
        let read_budget = ReadBudget::new(config.http.max_read_bytes);
        Api {
            ingest: Ingest::new(
                Arc::clone(&self.queue),
                limits,
                budget,
                Arc::clone(&self.retention),
            ),
            repository: Arc::clone(&self.repository),
            tails: Tails::new(
                Arc::clone(&self.tail),
                Arc::clone(&self.repository),
                read_budget.clone(),
            ),
            read_budget,
            streams: Streams::default(),
            dead_letters: DeadLetterService::new(
                Arc::clone(&self.dead_letters),
                self.guarded_store(),
            ),
            erasures: ErasureService::new(Arc::clone(&self.erasures)),
            stop,
            body_limits: BodyLimits { what: "the body", max_bytes: config.http.max_body_bytes },
            heavy: HeavyWork::default(),
        }
    }

    fn worker(
        &self,
        config: &Config,
        status: Arc<WorkerStatus>,
        bulks: &Handle,
    ) -> anyhow::Result<Worker> {
        let (topic, commit_interval) = match config.kafka.brokers {
            Some(_) => (config.kafka.topic.as_str(), Duration::from_secs(1)),
            // Admission control of the embedded queue needs frequent commits (ADR 0013).
            None => (EMBEDDED_TOPIC, Duration::from_millis(200)),
        };
        // MongoDB stores several small bulks at once, SQLite few large
        // transactions (ADR 0017).
        let (bulk_records, bulks_in_flight, linger) = match self.store {
            Store::MongoDb(_) => (1000, 4, Duration::from_millis(25)),
            Store::Embedded(_) => (16_000, 2, Duration::from_millis(250)),
        };
        let options = PersistOptions {
            topic: topic.to_owned(),
            // librdkafka prefetches into the other half.
            max_bytes: config.worker.max_bytes / 2,
            bulk_records,
            linger,
            bulks_in_flight,
            commit_interval,
        };
        let persist = Persist::new(
            self.guarded_store(),
            Arc::clone(&self.dead_letters),
            status,
            options,
            bulks.clone(),
        );
        Worker::start(persist, Arc::clone(&self.queue)).context("cannot start the worker thread")
    }
}

fn kafka_queue(brokers: &str, config: &Config) -> anyhow::Result<Arc<dyn LogQueue>> {
    let kafka = KafkaQueue::start(kafka_options(brokers, config))?;
    match &config.spool.dir {
        Some(dir) if config.role.has_api() => with_spool(kafka, dir, config.spool.max_bytes),
        _ => Ok(kafka),
    }
}

fn open_data_dir(variable: &str, path: &Path) -> anyhow::Result<Arc<DataDir>> {
    let dir = DataDir::open(path).with_context(|| variable.to_owned())?;
    process::warn_if_shared(variable, path);
    Ok(dir)
}

fn with_spool(
    kafka: Arc<KafkaQueue>,
    dir: &Path,
    max_bytes: u64,
) -> anyhow::Result<Arc<dyn LogQueue>> {
    let dir = open_data_dir("EYEGO_SPOOL_DIR", dir)?;
    let options = SqliteQueueOptions {
        name: "spool",
        is_fallback: true,
        max_bytes,
        append_timeout: SPOOL_TIMEOUT,
    };
    let spool = SqliteQueue::open(&dir, options)?;
    Ok(SpooledQueue::start(kafka, spool).context("cannot start the spool thread")?)
}

fn kafka_options(brokers: &str, config: &Config) -> KafkaOptions {
    let kafka = &config.kafka;
    let properties = kafka.properties.iter().flat_map(Properties::iter);
    KafkaOptions {
        brokers: brokers.to_owned(),
        topic: kafka.topic.clone(),
        group: kafka.group.clone(),
        partitions: kafka.partitions,
        replication: kafka.replication,
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        max_queued_bytes: config.http.max_in_flight_bytes(),
        max_prefetch_bytes: config.worker.max_bytes / 2,
        max_record_bytes: config.http.max_event_bytes,
        appends: config.role.has_api(),
    }
}

fn mongo_options(uri: &Secret, mongodb: &MongoDbConfig) -> MongoOptions {
    MongoOptions {
        uri: uri.reveal().to_owned(),
        database: mongodb.database.clone(),
        collection: mongodb.collection.clone(),
        create_indexes: mongodb.create_indexes,
    }
}
