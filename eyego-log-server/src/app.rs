//! The composition root: builds the parts that the configuration asks for,
//! starts them, and stops them in order. It alone names concrete adapters.

mod lanes;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;

use self::lanes::{LaneRequests, Lanes};
use crate::application::dead_letters::DeadLetterOffice;
use crate::application::ingest::{Budget, Ingest, IngestLimits};
use crate::application::persist::{Persist, PersistOptions, Requests, WorkerStatus};
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
use crate::interface::worker::Worker;

/// Of the time to stop, this much is kept for closing what the worker leaves.
const CLOSING: Duration = Duration::from_secs(2);

/// With the second that the queue is given before, inside the API's 8 s.
const SPOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of the embedded queue where a topic's would stand.
const EMBEDDED_TOPIC: &str = "embedded";

/// Serves until a signal says to stop.
///
/// # Errors
/// It cannot start: the address is taken, the data directory is in use.
pub fn run(config: Config) -> anyhow::Result<()> {
    // The one TLS provider of the process; a second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let main = runtime("main")?;
    // Until the engines are closed: what they opened there dies with it.
    let lanes = Lanes::start().context("cannot start the threads for requests")?;
    // A bulk is decoded and encoded in one go: on the threads that answer
    // requests, those would wait for it (measured: their p99 was twice as long).
    let bulks = config.role.has_worker().then(|| runtime("bulks")).transpose()?;
    let result = main.block_on(serve(config, &lanes, bulks.as_ref().map(Runtime::handle)));
    // A hung call to an engine must not keep the process.
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

async fn serve(config: Config, lanes: &Lanes, bulks: Option<&Handle>) -> anyhow::Result<()> {
    let mut signals = signals::Signals::listen()?;
    // First: a second process on the same port or data shall touch nothing.
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
    let lanes = lanes.handles().to_vec();
    let requests = api.as_ref().map(|api| -> Arc<dyn Requests> {
        Arc::new(LaneRequests { lanes: lanes.clone(), waiters: api.retrieve.waiters() })
    });
    let routes = match api {
        Some(api) => api_routes(api, Arc::clone(&readiness), metrics),
        None => operations_routes(Arc::clone(&readiness), metrics),
    };
    let worker = bulks.map(|bulks| parts.worker(&config, status, bulks, requests)).transpose()?;

    let mut serving = tokio::spawn(async move { bound.serve(routes, &lanes, stop).await });
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        // It ends by itself only if it panics.
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
    let requests_end = deadline - CLOSING.min(config.http.shutdown_timeout);
    // A task that has ended must not be awaited twice.
    if !serving.is_finished() && tokio::time::timeout_at(requests_end, serving).await.is_err() {
        tracing::warn!("requests are still open at the deadline");
    }
    if let Some(worker) = worker {
        worker.end(deadline).await;
    }
    parts.queue.close(deadline).await;
    parts.store.close(deadline).await;
    tracing::info!("stopped");
    Ok(())
}

#[expect(clippy::exit, reason = "a second signal means: whatever you are doing, end")]
fn exit_at_once() {
    tracing::warn!("a second signal: ending at once");
    std::process::exit(130);
}

/// The adapters that the configuration asks for.
struct Parts {
    queue: Arc<dyn LogQueue>,
    repository: Arc<dyn LogRepository>,
    dead_letters: Arc<dyn DeadLetters>,
    store: Store,
}

/// The engine under the repository and the dead letters, to be closed once.
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
            dead_letters: DeadLetterOffice::new(
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
        requests: Option<Arc<dyn Requests>>,
    ) -> anyhow::Result<Worker> {
        let topic = config.kafka.as_ref().map_or(EMBEDDED_TOPIC, |kafka| kafka.topic.as_str());
        // To MongoDB many small bulks (where there is a backlog they are full
        // at once): one of a thousand keeps a core, here and there, for long
        // enough that callers feel it. For SQLite a transaction is what costs.
        let (bulk_records, bulks_in_flight, linger) = match config.mongodb {
            Some(_) => (1000, 4, Duration::from_millis(25)),
            None => (16_000, 2, Duration::from_millis(250)),
        };
        let options = PersistOptions {
            topic: topic.to_owned(),
            // The other half is what Kafka's client fetches ahead.
            max_bytes: config.worker.max_bytes / 2,
            bulk_records,
            linger,
            bulks_in_flight,
            commit_interval: Duration::from_secs(1),
            max_delay: config.worker.max_delay,
        };
        let mut persist = Persist::new(
            Arc::clone(&self.repository),
            Arc::clone(&self.dead_letters),
            status,
            options,
            bulks.clone(),
        );
        if let Some(requests) = requests {
            persist = persist.giving_way_to(requests);
        }
        Worker::start(persist, Arc::clone(&self.queue)).context("cannot start the worker's thread")
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
    Ok(SpooledQueue::start(queue, spool).context("cannot start the spool's thread")?)
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
