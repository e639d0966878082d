//! Apache Kafka 4.1.0 in `KRaft` mode: one broker shared by a test process, or a private cluster
//! whose brokers a test kills, freezes and restarts.

mod properties;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use tokio::sync::OnceCell;

use crate::process::{Daemon, Signal, Spec};
use crate::scratch::Scratch;
use crate::{compose, download, port};

/// How long a start or a restart may take: three JVMs on a small busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a broker may take to hand over its partitions and end.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const START_ATTEMPTS: usize = 3;

/// What a private cluster looks like.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// 1 or 3. Three keep each topic three times, with `min.insync.replicas` 2. Default 1.
    pub brokers: usize,
    /// Broker properties beside the harness's own, or instead of them.
    pub properties: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            properties: Vec::new(),
        }
    }
}

impl KafkaOptions {
    /// Three brokers.
    #[must_use]
    pub fn three() -> Self {
        Self {
            brokers: 3,
            ..Self::default()
        }
    }

    /// Sets a broker property.
    #[must_use]
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// The Kafka that all cases share: there is nothing on it to kill.
#[derive(Debug, Clone)]
pub struct SharedKafka {
    bootstrap: String,
}

impl SharedKafka {
    /// The value for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

/// A private cluster of local processes. Brokers are counted from 0. Dropping it kills them and
/// removes their data.
#[derive(Debug)]
pub struct Kafka {
    // Before the directory: what is dropped first no longer writes into it.
    brokers: Vec<Broker>,
    bootstrap: String,
    _scratch: Scratch,
}

#[derive(Debug)]
struct Broker {
    daemon: Daemon,
    address: String,
}

impl Kafka {
    /// The Kafka that all cases of this process share, started at the first call.
    ///
    /// # Errors
    /// When no way leads to one: the message says what to install or to set.
    pub async fn shared() -> Result<SharedKafka> {
        static SHARED: OnceCell<(SharedKafka, Option<Kafka>)> = OnceCell::const_new();
        let (shared, _) = SHARED.get_or_try_init(start_shared).await?;
        Ok(shared.clone())
    }

    /// A private cluster, ready for use.
    ///
    /// # Errors
    /// When Kafka cannot be had or does not come up: with the end of its log.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let kafka = Self::prepare(options.clone()).await?;
            let Err(error) = kafka.up().await else {
                return Ok(kafka);
            };
            // Somebody may have taken a port between our choice and the broker's start.
            let port_taken = kafka
                .brokers
                .iter()
                .any(|broker| broker.daemon.log().contains("Address already in use"));
            if !port_taken || attempt == START_ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// A private cluster that does not run yet; its addresses are final. [`Kafka::up`] starts it.
    ///
    /// # Errors
    /// When Kafka cannot be had, or its storage cannot be formatted.
    pub async fn prepare(options: KafkaOptions) -> Result<Self> {
        tokio::task::spawn_blocking(move || lay_out(&options)).await?
    }

    /// Starts all brokers that do not run and waits until each of them knows all.
    ///
    /// # Errors
    /// When a broker does not come up: with the end of its log.
    pub async fn up(&self) -> Result<()> {
        for broker in self
            .brokers
            .iter()
            .filter(|broker| !broker.daemon.is_running())
        {
            broker.daemon.launch()?;
        }
        self.ready().await
    }

    /// Waits until each broker that runs knows all that run.
    ///
    /// # Errors
    /// When that takes too long: with the end of a broker's log.
    pub async fn ready(&self) -> Result<()> {
        let expected: Vec<i32> = self.running().map(node_id).collect();
        for index in self.running() {
            self.wait_for(index, &expected).await?;
        }
        Ok(())
    }

    /// The value for `bootstrap.servers`: all brokers.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// SIGKILL: the broker is gone when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?.kill()
    }

    /// SIGTERM: the broker hands over its partitions and has ended when this returns.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn stop(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?
            .terminate(STOP_PATIENCE)
            .await
            .map(drop)
    }

    /// SIGSTOP: the broker is silent, its connections stay open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?.signal(Signal::Stop)
    }

    /// SIGCONT after [`Kafka::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?.signal(Signal::Continue)
    }

    /// Starts a broker that was killed or stopped, on the same port and data, and returns at once.
    ///
    /// # Errors
    /// When it runs.
    pub fn launch(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?.launch()
    }

    /// [`Kafka::launch`], then waits until the broker is part of the cluster again. This needs
    /// two of three brokers; to bring back a cluster that lost its majority, use [`Kafka::up`].
    ///
    /// # Errors
    /// When it runs, or does not come up: with the end of its log.
    pub async fn restart(&self, broker: usize) -> Result<()> {
        self.launch(broker)?;
        self.wait_for(broker, &[node_id(broker)]).await
    }

    /// The broker that leads a partition.
    ///
    /// # Errors
    /// When there is none at this moment, or no broker answers.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<usize> {
        let (bootstrap, topic) = (self.bootstrap.clone(), topic.to_owned());
        let node =
            tokio::task::spawn_blocking(move || partition_leader(&bootstrap, &topic, partition))
                .await??;
        usize::try_from(node - 1).context("the partition has no leader")
    }

    /// The process id of a broker.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, broker: usize) -> Result<u32> {
        self.daemon(broker)?.pid()
    }

    /// What a broker has logged so far.
    ///
    /// # Errors
    /// When there is no such broker.
    pub fn log(&self, broker: usize) -> Result<String> {
        Ok(self.daemon(broker)?.log())
    }

    fn daemon(&self, broker: usize) -> Result<&Daemon> {
        let broker = self
            .brokers
            .get(broker)
            .with_context(|| format!("there is no broker {broker}"))?;
        Ok(&broker.daemon)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.brokers.len()).filter(|&index| self.brokers[index].daemon.is_running())
    }

    async fn wait_for(&self, broker: usize, expected: &[i32]) -> Result<()> {
        let Broker { daemon, address } = &self.brokers[broker];
        daemon
            .wait_until(PATIENCE, async || knows(address.clone(), expected).await)
            .await
    }
}

/// Kafka wants ids from 1.
fn node_id(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

async fn start_shared() -> Result<(SharedKafka, Option<Kafka>)> {
    if let Ok(bootstrap) = std::env::var("EYEGO_TEST_KAFKA_BROKERS") {
        knows(bootstrap.clone(), &[]).await.with_context(|| {
            format!("no Kafka answers at EYEGO_TEST_KAFKA_BROKERS ({bootstrap})")
        })?;
        return Ok((SharedKafka { bootstrap }, None));
    }
    let docker =
        tokio::task::spawn_blocking(|| compose::available().then(|| compose::up("kafka"))).await?;
    let docker_error = match docker {
        Some(Ok(())) => {
            return Ok((
                SharedKafka {
                    bootstrap: compose::KAFKA.to_owned(),
                },
                None,
            ));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let kafka =
        Kafka::start(KafkaOptions::default())
            .await
            .map_err(|error| match docker_error {
                Some(docker_error) => anyhow!("{error:#}; and before that: {docker_error:#}"),
                None => error,
            })?;
    Ok((
        SharedKafka {
            bootstrap: kafka.bootstrap.clone(),
        },
        Some(kafka),
    ))
}

/// Everything but the start: ports, directories, configuration, formatted storage.
fn lay_out(options: &KafkaOptions) -> Result<Kafka> {
    ensure!(
        matches!(options.brokers, 1 | 3),
        "a cluster has 1 or 3 brokers, not {}",
        options.brokers
    );
    let libs = download::kafka_libs()?;
    let class_path = format!("{}/*", libs.display());
    let scratch = Scratch::new("kafka")?;
    let ports = (0..options.brokers)
        .map(|_| {
            Ok(properties::Ports {
                broker: port::free()?,
                controller: port::free()?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut brokers = Vec::new();
    let mut configs = Vec::new();
    for (index, own) in ports.iter().enumerate() {
        let dir = scratch.path().join(format!("broker-{index}"));
        std::fs::create_dir(&dir)?;
        let config = dir.join("server.properties");
        std::fs::write(
            &config,
            properties::render(index, &ports, &dir, &options.properties),
        )?;
        let spec = Spec::new(
            format!("kafka broker {index}"),
            "java",
            dir.join("kafka.log"),
        )
        .args(["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args([
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        ])
        .args(["-cp", &class_path, "kafka.Kafka"])
        .arg(&config)
        .dir(&dir);
        brokers.push(Broker {
            daemon: Daemon::new(spec),
            address: format!("127.0.0.1:{}", own.broker),
        });
        configs.push(config);
    }
    format_storage(&class_path, &configs)?;
    let addresses: Vec<&str> = brokers
        .iter()
        .map(|broker| broker.address.as_str())
        .collect();
    let bootstrap = addresses.join(",");
    Ok(Kafka {
        brokers,
        bootstrap,
        _scratch: scratch,
    })
}

/// One short JVM per broker, side by side.
fn format_storage(class_path: &str, configs: &[impl AsRef<Path> + Sync]) -> Result<()> {
    std::thread::scope(|scope| {
        let formats: Vec<_> = configs
            .iter()
            .map(|config| {
                scope.spawn(move || {
                    download::run(
                        Command::new("java")
                            .args([
                                "-XX:+UseSerialGC",
                                "-XX:TieredStopAtLevel=1",
                                "-cp",
                                class_path,
                            ])
                            .args([
                                "kafka.tools.StorageTool",
                                "format",
                                "-t",
                                properties::CLUSTER_ID,
                                "-c",
                            ])
                            .arg(config.as_ref()),
                    )
                })
            })
            .collect();
        formats
            .into_iter()
            .try_for_each(|format| format.join().map_err(|_| anyhow!("a format panicked"))?)
    })
}

/// Succeeds when the broker at `address` lists all of `expected` as alive.
async fn knows(address: String, expected: &[i32]) -> Result<()> {
    let listed = tokio::task::spawn_blocking(move || alive(&address)).await??;
    ensure!(
        expected.iter().all(|id| listed.contains(id)),
        "brokers {expected:?} are expected, {listed:?} are alive"
    );
    Ok(())
}

fn alive(bootstrap: &str) -> Result<Vec<i32>> {
    let metadata = client(bootstrap)?
        .client()
        .fetch_metadata(None, Duration::from_secs(1))?;
    Ok(metadata
        .brokers()
        .iter()
        .map(rdkafka::metadata::MetadataBroker::id)
        .collect())
}

fn partition_leader(bootstrap: &str, topic: &str, partition: i32) -> Result<i32> {
    let metadata = client(bootstrap)?
        .client()
        .fetch_metadata(Some(topic), Duration::from_secs(10))?;
    metadata
        .topics()
        .iter()
        .flat_map(rdkafka::metadata::MetadataTopic::partitions)
        .find(|candidate| candidate.id() == partition)
        .map(rdkafka::metadata::MetadataPartition::leader)
        .with_context(|| format!("there is no partition {partition} of {topic}"))
}

fn client(bootstrap: &str) -> Result<BaseProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "200")
        .set("allow.auto.create.topics", "false")
        .create()?)
}
