//! The stack that the faults hit: three brokers, three mongods, two APIs and three workers, with a
//! proxy in front of each broker, each mongod and each API.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::RwLock;
use tokio::time::Instant;

use super::aged;
use super::plan::{APIS, WORKERS};
use crate::download::workspace_dir;
use crate::kafka::{Kafka, KafkaOptions};
use crate::keys::KeysFile;
use crate::mongodb::{Mongo, MongoOptions};
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::server::{Server, ServerBuilder};

/// The time until a server is ready, once Kafka and MongoDB are.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Small enough that an outage of Kafka fills it.
const SPOOL_MAX_BYTES: &str = "1MiB";

pub(super) struct Deployment {
    pub(super) kafka: Kafka,
    pub(super) mongo: Mongo,
    pub(super) apis: Vec<Api>,
    pub(super) workers: Vec<Server>,
    pub(super) names: Names,
    /// The token of a key with every scope that the run needs.
    pub(super) token: String,
    /// Whoever sends holds it for reading. It is closed while the topic is replaced.
    pub(super) gate: Arc<RwLock<()>>,
    /// Ids of events that were stored to see that the stack works.
    pub(super) probes: Mutex<Vec<String>>,
    last_repair: Mutex<Instant>,
    /// Kept until the servers have been killed.
    keys: KeysFile,
    /// Kept until the servers have been killed.
    _spools: Option<Scratch>,
}

/// An API server, and the proxy that its callers connect through.
pub(super) struct Api {
    pub(super) server: Server,
    pub(super) proxy: Proxy,
}

/// The names that the servers share.
pub(super) struct Names {
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) database: String,
}

impl Deployment {
    /// Starts everything and waits until it is ready.
    pub(super) async fn start(has_spool: bool) -> Result<Self> {
        let kafka = KafkaOptions::three()
            // Leaders move back soon, so that the next fault hits a leader again.
            .property("leader.imbalance.check.interval.seconds", "10")
            // A topic that was deleted is created with its own settings only.
            .property("auto.create.topics.enable", "false")
            .behind_proxies();
        let (kafka, mongo) = tokio::try_join!(
            Kafka::start(kafka),
            Mongo::start(MongoOptions::three().behind_proxies())
        )?;
        let names = Names {
            topic: crate::unique("chaos"),
            group: crate::unique("chaos"),
            database: crate::unique("chaos"),
        };
        let spools = has_spool.then(|| Scratch::new("spools")).transpose()?;
        let keys = KeysFile::new()?;
        let token = keys.add("chaos", &["ingest", "read", "erase", "admin", "metrics"])?;
        let builder = |role: &str| server(&kafka, &mongo, &keys, &names, role);
        let mut apis = Vec::new();
        for n in 0..APIS {
            let dir = spools.as_ref().map(|spools| spools.path().join(format!("api-{n}")));
            let server = with_spool(builder("api"), dir.as_deref()).start().await?;
            let proxy = Proxy::start(server.port())?;
            apis.push(Api { server, proxy });
        }
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(builder("worker").start().await?);
        }
        let last_repair = Mutex::new(Instant::now());
        let deployment = Self {
            kafka,
            mongo,
            apis,
            workers,
            names,
            token,
            gate: Arc::default(),
            probes: Mutex::default(),
            last_repair,
            keys,
            _spools: spools,
        };
        deployment.ready().await?;
        Ok(deployment)
    }

    /// Returns another worker, of this consumer group.
    pub(super) fn worker_of(&self, group: &str) -> ServerBuilder {
        let worker = server(&self.kafka, &self.mongo, &self.keys, &self.names, "worker");
        worker.env("EYEGO_KAFKA_GROUP", group)
    }

    /// Waits until each part is ready.
    pub(super) async fn ready(&self) -> Result<()> {
        self.kafka.ready().await?;
        self.mongo.ready().await?;
        for (_, server) in self.servers() {
            server.wait_ready(READY_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Returns all servers with their names.
    pub(super) fn servers(&self) -> impl Iterator<Item = (String, &Server)> {
        let apis = self.apis.iter().enumerate();
        let apis = apis.map(|(n, api)| (format!("api {n}"), &api.server));
        let workers = self.workers.iter().enumerate();
        apis.chain(workers.map(|(n, worker)| (format!("worker {n}"), worker)))
    }

    /// Returns the base URLs that callers send to: those of the proxies.
    pub(super) fn api_urls(&self) -> Vec<String> {
        let url = |api: &Api| format!("http://127.0.0.1:{}", api.proxy.port());
        self.apis.iter().map(url).collect()
    }

    /// Copies the servers' logs to a directory that is kept, and returns it.
    pub(super) fn keep_logs(&self, seed: u64) -> Result<PathBuf> {
        let dir = workspace_dir()?.join(format!("target/chaos/seed-{seed}"));
        std::fs::create_dir_all(&dir)?;
        for (name, server) in self.servers() {
            std::fs::write(dir.join(format!("{}.log", name.replace(' ', "-"))), server.log())?;
        }
        Ok(dir)
    }

    /// Notes that a fault has been repaired now.
    pub(super) fn note_repair(&self) {
        *self.last_repair.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when the last fault was repaired.
    pub(super) fn last_repair(&self) -> Instant {
        *self.last_repair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server(
    kafka: &Kafka,
    mongo: &Mongo,
    keys: &KeysFile,
    names: &Names,
    role: &str,
) -> ServerBuilder {
    Server::builder()
        .env("EYEGO_KEYS_FILE", keys.path())
        .env("EYEGO_ROLE", role)
        .env("EYEGO_KAFKA_BROKERS", kafka.proxied_bootstrap())
        .env("EYEGO_KAFKA_TOPIC", &names.topic)
        // So that three workers have more than one each.
        .env("EYEGO_KAFKA_PARTITIONS", "6")
        .env("EYEGO_KAFKA_GROUP", &names.group)
        .env("EYEGO_KAFKA_REPLICATION", "3")
        .env("EYEGO_MONGODB_URI", mongo.uri())
        .env("EYEGO_MONGODB_DATABASE", &names.database)
        .env("EYEGO_RETENTION", aged::LONG_RETENTION)
        .env("EYEGO_RETENTION_BY_ACTION", aged::short_retention())
        .relayed_stderr()
}

fn with_spool(builder: ServerBuilder, dir: Option<&Path>) -> ServerBuilder {
    match dir {
        Some(dir) => {
            builder.env("EYEGO_SPOOL_DIR", dir).env("EYEGO_SPOOL_MAX_BYTES", SPOOL_MAX_BYTES)
        }
        None => builder,
    }
}
