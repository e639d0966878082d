//! The composition root: builds the parts the configuration asks for, starts
//! them and stops them in order. No other module names a concrete adapter.

mod runtimes;
mod signals;
mod worker;

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
use crate::application::retrieve::Retrieve;
use crate::config::{Config, KafkaConfig, MongoDbConfig, SpoolConfig};
use crate::domain::dead_letter::DeadLetters;
use crate::domain::queue::LogQueue;
use crate::domain::repository::LogRepository;
use crate::infrastructure::embedded::DataDir;
use crate::infrastructure::queue::kafka::{KafkaOptions, KafkaQueue};
use crate::infrastructure::queue::spool::SpooledQueue;
use crate::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use crate::infrastructure::repository::mongodb::{
    MongoConnection, MongoDeadLetters, MongoOptions, MongoRepository,
};
use crate::infrastructure::repository::sqlite::{SqliteDeadLetters, SqliteRepository, SqliteStore};
use crate::interface::http::{
    Api, BodyLimits, Metrics, Readiness, api_routes, bind, operations_routes,
};

/// Part of the shutdown time reserved for the worker and the engines.
const CLOSE_ENGINES: Duration = Duration::from_secs(2);

/// Together with the second that Kafka gets first, this stays below the API's
/// limit of 8 s for ingest.
const SPOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Stands in for the topic name where the queue is embedded.
const EMBEDDED_TOPIC: &str = "embedded";

/// Serves until the process receives a signal to stop.
///
/// # Errors
/// Returns an error if the server cannot start, for example because the address
/// or the data directory is in use.
pub fn run(config: Config) -> anyhow::Result<()> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let main = runtime("main")?;
    // Must outlive the engines: their connections are registered with it.
    let http = RuntimePool::start().context("cannot start the HTTP runtimes")?;
    // Decoding and encoding a bulk takes milliseconds, which would delay
    // requests on the same threads (ADR 0017).
    let bulks = config.role.has_worker().then(|| runtime("bulks")).transpose()?;
    let result = main.block_on(serve(config, &http, bulks.as_ref().map(Runtime::handle)));
    // A call to an engine that hangs must not keep the process alive.
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

async fn serve(config: Config, http: &RuntimePool, bulks: Option<&Handle>) -> anyhow::Result<()> {
    let mut signals = signals::Signals::listen()?;
    // Bind first, so that a second process on this port touches no data.
    let bound = bind(&config.http.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.http.listen))?;
    let parts = Parts::build(&config)?;
    let address = bound.address();
    let role = config.role;
    tracing::info!(%address, ?role, queue = parts.queue.health().name, store = parts.repository.health().name, "listening");

    let status = Arc::new(WorkerStatus::default());
    let readiness = Arc::new(Readiness::new(
        Arc::clone(&parts.queue),
        Arc::clone(&parts.repository),
        role.has_worker().then(|| Arc::clone(&status)),
        !role.has_api(),
    ));
    let (stop_serving, stop) = watch::channel(false);
    let api = role.has_api().then(|| Arc::new(parts.api(&config, stop.clone())));
    let metrics = Arc::new(Metrics::new(
        api.as_ref().map(|api| Arc::clone(api.ingest.counters())),
        role.has_worker().then(|| Arc::clone(&status)),
        Arc::clone(&parts.queue),
    ));
    let runtimes = http.handles().to_vec();
    let routes = match api {
        Some(api) => api_routes(api, Arc::clone(&readiness), metrics),
        None => operations_routes(Arc::clone(&readiness), metrics),
    };
    let worker = bulks.map(|bulks| parts.worker(&config, status, bulks)).transpose()?;

    let mut serving = tokio::spawn(async move { bound.serve(routes, &runtimes, stop).await });
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        // The accept loop returns by itself only if it panics.
        _ = &mut serving => tracing::error!("the accept loop ended"),
    }

    readiness.stop();
    tokio::spawn(async move {
        signals.next().await;
        exit_at_once();
    });
    tokio::time::sleep(config.http.shutdown_delay).await;
    let deadline = Instant::now() + config.http.shutdown_timeout;
    stop_serving.send_replace(true);
    let requests_end = deadline - CLOSE_ENGINES.min(config.http.shutdown_timeout);
    // A finished task must not be polled again.
    if !serving.is_finished()
        && tokio::time::timeout_at(requests_end.into(), serving).await.is_err()
    {
        tracing::warn!("requests are still in flight at the deadline");
    }
    if let Some(worker) = worker {
        worker.shut_down(deadline).await;
    }
    parts.queue.close(deadline).await;
    parts.store.close(deadline).await;
    tracing::info!("stopped");
    Ok(())
}

#[expect(clippy::exit, reason = "a second signal asks for an immediate exit")]
fn exit_at_once() {
    tracing::warn!("received a second signal: exiting immediately");
    std::process::exit(130);
}

/// The adapters selected by the configuration.
struct Parts {
    queue: Arc<dyn LogQueue>,
    repository: Arc<dyn LogRepository>,
    dead_letters: Arc<dyn DeadLetters>,
    store: Store,
}

/// The engine shared by the repository and the dead letters.
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
        let data_dir = if config.kafka.is_none() || config.mongodb.is_none() {
            Some(DataDir::open(&config.embedded.data_dir)?)
        } else {
            None
        };
        let data_dir = || data_dir.as_ref().context("no data directory");
        let queue: Arc<dyn LogQueue> = match &config.kafka {
            Some(kafka) => {
                let queue = KafkaQueue::start(kafka_options(kafka, config))?;
                match &config.spool {
                    Some(spool) if config.role.has_api() => with_spool(queue, spool)?,
                    _ => queue,
                }
            }
            None => {
                let max_bytes = config.embedded.queue_max_bytes;
                let options = SqliteQueueOptions { max_bytes, ..SqliteQueueOptions::default() };
                SqliteQueue::open(data_dir()?, options)?
            }
        };
        match &config.mongodb {
            Some(mongodb) => {
                let connection = MongoConnection::start(mongo_options(mongodb))?;
                Ok(Self {
                    queue,
                    repository: Arc::new(MongoRepository::new(Arc::clone(&connection))),
                    dead_letters: Arc::new(MongoDeadLetters::new(Arc::clone(&connection))),
                    store: Store::MongoDb(connection),
                })
            }
            None => {
                let store = SqliteStore::open(data_dir()?)?;
                Ok(Self {
                    queue,
                    repository: Arc::new(SqliteRepository::new(Arc::clone(&store))),
                    dead_letters: Arc::new(SqliteDeadLetters::new(Arc::clone(&store))),
                    store: Store::Embedded(store),
                })
            }
        }
    }

    fn api(&self, config: &Config, stop: watch::Receiver<bool>) -> Api {
        let limits = IngestLimits {
            max_event_bytes: config.http.max_event_bytes,
            max_batch_events: config.http.max_batch_events,
        };
        let budget = Budget::new(config.http.max_in_flight_bytes);
        Api {
            ingest: Ingest::new(Arc::clone(&self.queue), limits, budget),
            retrieve: Retrieve::new(Arc::clone(&self.repository)),
            dead_letters: DeadLetterService::new(
                Arc::clone(&self.dead_letters),
                Arc::clone(&self.repository),
            ),
            stop,
            body_limits: BodyLimits { max_bytes: config.http.max_body_bytes },
        }
    }

    fn worker(
        &self,
        config: &Config,
        status: Arc<WorkerStatus>,
        bulks: &Handle,
    ) -> anyhow::Result<Worker> {
        let topic = config.kafka.as_ref().map_or(EMBEDDED_TOPIC, |kafka| kafka.topic.as_str());
        // MongoDB: small bulks, several at once. SQLite: few large transactions.
        // ADR 0017 has the figures.
        let (bulk_records, bulks_in_flight, linger) = match config.mongodb {
            Some(_) => (1000, 4, Duration::from_millis(25)),
            None => (16_000, 2, Duration::from_millis(250)),
        };
        let options = PersistOptions {
            topic: topic.to_owned(),
            // Kafka's client prefetches into the other half.
            max_bytes: config.worker.max_bytes / 2,
            bulk_records,
            linger,
            bulks_in_flight,
            commit_interval: Duration::from_secs(1),
        };
        let persist = Persist::new(
            Arc::clone(&self.repository),
            Arc::clone(&self.dead_letters),
            status,
            options,
            bulks.clone(),
        );
        Worker::start(persist, Arc::clone(&self.queue)).context("cannot start the worker thread")
    }
}

fn with_spool(queue: Arc<KafkaQueue>, config: &SpoolConfig) -> anyhow::Result<Arc<dyn LogQueue>> {
    let dir = DataDir::open(&config.dir).context("EYEGO_SPOOL_DIR")?;
    let options = SqliteQueueOptions {
        name: "spool",
        is_fallback: true,
        max_bytes: config.max_bytes,
        append_timeout: SPOOL_TIMEOUT,
    };
    let spool = SqliteQueue::open(&dir, options)?;
    Ok(SpooledQueue::start(queue, spool).context("cannot start the spool thread")?)
}

fn kafka_options(kafka: &KafkaConfig, config: &Config) -> KafkaOptions {
    KafkaOptions {
        brokers: kafka.brokers.clone(),
        topic: kafka.topic.clone(),
        group: kafka.group.clone(),
        partitions: kafka.partitions,
        replication: kafka.replication,
        properties: kafka
            .properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        max_queued_bytes: config.http.max_in_flight_bytes,
        max_prefetch_bytes: config.worker.max_bytes / 2,
        max_record_bytes: config.http.max_event_bytes,
        appends: config.role.has_api(),
    }
}

fn mongo_options(mongodb: &MongoDbConfig) -> MongoOptions {
    MongoOptions {
        uri: mongodb.uri.reveal().to_owned(),
        database: mongodb.database.clone(),
        collection: mongodb.collection.clone(),
        create_indexes: mongodb.create_indexes,
    }
}
