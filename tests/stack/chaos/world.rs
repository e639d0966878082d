//! The stack that the faults hit: three brokers, three mongods, two apis and three workers, with a
//! proxy before each broker, each mongod and each api.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::plan::{APIS, WORKERS};
use crate::download::workspace_dir;
use crate::kafka::{Kafka, KafkaOptions};
use crate::mongodb::{Mongo, MongoOptions};
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::server::{Server, ServerBuilder};

/// How long a server may take to be ready once everything is there.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// Small enough that an outage of Kafka fills it.
const SPOOL_MAX_BYTES: &str = "1MiB";

pub(super) struct World {
    pub(super) kafka: Kafka,
    pub(super) mongo: Mongo,
    pub(super) apis: Vec<Api>,
    pub(super) workers: Vec<Server>,
    pub(super) names: Names,
    pub(super) last_fault: Mutex<Instant>,
    /// Outlives the servers, as the disk of a spool must.
    _spools: Option<Scratch>,
}

/// A server that takes events, and the proxy that its callers come through.
pub(super) struct Api {
    pub(super) server: Server,
    pub(super) proxy: Proxy,
}

/// What the servers share.
pub(super) struct Names {
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) database: String,
}

impl World {
    /// Everything, ready.
    pub(super) async fn start(has_spool: bool) -> Result<Self> {
        let kafka = KafkaOptions::three()
            // Leaders move back soon, so that the next fault hits some again.
            .property("leader.imbalance.check.interval.seconds", "10")
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
        let builder = |role: &str| {
            Server::builder()
                .env("EYEGO_ROLE", role)
                .env("EYEGO_KAFKA_BROKERS", kafka.proxied_bootstrap())
                .env("EYEGO_KAFKA_TOPIC", &names.topic)
                .env("EYEGO_KAFKA_GROUP", &names.group)
                .env("EYEGO_KAFKA_REPLICATION", "3")
                .env("EYEGO_MONGODB_URI", mongo.uri())
                .env("EYEGO_MONGODB_DATABASE", &names.database)
        };
        let mut apis = Vec::new();
        for n in 0..APIS {
            let dir = spools.as_ref().map(|spools| spools.path().join(format!("api-{n}")));
            let server = spooling(builder("api"), dir.as_deref()).start().await?;
            let proxy = Proxy::start(server.port())?;
            apis.push(Api { server, proxy });
        }
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(builder("worker").start().await?);
        }
        let last_fault = Mutex::new(Instant::now());
        let world = Self { kafka, mongo, apis, workers, names, last_fault, _spools: spools };
        world.ready().await?;
        Ok(world)
    }

    /// Waits until each part says that it is ready.
    pub(super) async fn ready(&self) -> Result<()> {
        self.kafka.ready().await?;
        self.mongo.ready().await?;
        for (_, server) in self.servers() {
            server.wait_ready(READY_PATIENCE).await?;
        }
        Ok(())
    }

    /// All servers with their names.
    pub(super) fn servers(&self) -> impl Iterator<Item = (String, &Server)> {
        let apis = self.apis.iter().enumerate();
        let apis = apis.map(|(n, api)| (format!("api {n}"), &api.server));
        let workers = self.workers.iter().enumerate();
        apis.chain(workers.map(|(n, worker)| (format!("worker {n}"), worker)))
    }

    /// Where callers send to.
    pub(super) fn api_urls(&self) -> Vec<String> {
        let url = |api: &Api| format!("http://127.0.0.1:{}", api.proxy.port());
        self.apis.iter().map(url).collect()
    }

    /// Copies what the servers logged to where it outlives them.
    pub(super) fn keep_logs(&self, seed: u64) -> Result<PathBuf> {
        let dir = workspace_dir()?.join(format!("target/chaos/seed-{seed}"));
        std::fs::create_dir_all(&dir)?;
        for (name, server) in self.servers() {
            std::fs::write(dir.join(format!("{}.log", name.replace(' ', "-"))), server.log())?;
        }
        Ok(dir)
    }

    /// A fault is over at this moment.
    pub(super) fn mended(&self) {
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When the last fault was over.
    pub(super) fn last_mended(&self) -> Instant {
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spooling(builder: ServerBuilder, dir: Option<&Path>) -> ServerBuilder {
    match dir {
        Some(dir) => {
            builder.env("EYEGO_SPOOL_DIR", dir).env("EYEGO_SPOOL_MAX_BYTES", SPOOL_MAX_BYTES)
        }
        None => builder,
    }
}
