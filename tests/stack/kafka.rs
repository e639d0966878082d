//! Apache Kafka 4.1.0 in `KRaft` mode: one broker that a test process shares, or a private cluster
//! whose brokers a test kills, freezes and restarts.

mod layout;
mod metadata;
mod properties;
mod queue;
mod shared;

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Purpose;
use crate::cluster::{self, Cluster};

pub use queue::queue_options;
pub use shared::SharedKafka;

/// The time for a start or a restart of three JVMs on a small, busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// The layout of a private cluster.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// The number of brokers: 1 or 3. Three replicate each topic three times, with
    /// `min.insync.replicas` 2. Default: 1.
    pub brokers: usize,
    /// Broker properties. They override those of the harness.
    pub properties: Vec<(String, String)>,
    /// What it is started for. Default: tests.
    pub purpose: Purpose,
    /// Whether each broker advertises the address of a [`Proxy`](crate::proxy::Proxy) to its
    /// clients. Brokers connect to one another directly. Default: false.
    pub behind_proxies: bool,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { brokers: 1, properties: Vec::new(), purpose: Purpose::Tests, behind_proxies: false }
    }
}

impl KafkaOptions {
    /// Returns the options for three brokers.
    #[must_use]
    pub fn three() -> Self {
        Self { brokers: 3, ..Self::default() }
    }

    /// Sets what the cluster is started for.
    #[must_use]
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Puts a proxy between each broker and its clients: see [`Kafka::proxied_bootstrap`].
    #[must_use]
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
        self
    }

    /// Sets a broker property.
    #[must_use]
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// A private cluster of local processes; its nodes are the brokers. Dropping it kills them and
/// removes their data.
#[derive(Debug)]
pub struct Kafka {
    cluster: Cluster,
    bootstrap: String,
}

impl Deref for Kafka {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Kafka {
    /// Returns the Kafka that all tests of this process share. The first call starts it.
    ///
    /// # Errors
    /// Returns an error that says what to install or to set if no source is available.
    pub async fn shared() -> Result<SharedKafka> {
        Self::shared_with(Purpose::Tests).await
    }

    /// Like [`shared`](Self::shared), but for `purpose`. Only the first call of either decides.
    ///
    /// # Errors
    /// Returns the errors of [`shared`](Self::shared).
    pub async fn shared_with(purpose: Purpose) -> Result<SharedKafka> {
        shared::get(purpose).await
    }

    /// Starts a private cluster and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if Kafka is not available, or if it does not start: with the end of its log.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        cluster::start_on_free_ports(|| async {
            let kafka = Self::prepare(options.clone()).await?;
            kafka.up().await.map_err(|error| kafka.start_error(error))?;
            Ok(kafka)
        })
        .await
    }

    /// Prepares a private cluster without starting it. Its addresses are final. [`Kafka::up`]
    /// starts it.
    ///
    /// # Errors
    /// Returns an error if Kafka is not available, or its storage cannot be formatted.
    pub async fn prepare(options: KafkaOptions) -> Result<Self> {
        tokio::task::spawn_blocking(move || layout::lay_out(&options)).await?
    }

    /// Starts all brokers that are not running and waits until each of them lists all.
    ///
    /// # Errors
    /// Returns an error if a broker does not start: with the end of its log.
    pub async fn up(&self) -> Result<()> {
        self.launch_all()?;
        self.ready().await
    }

    /// Waits until each running broker lists all running brokers. None may be paused.
    ///
    /// # Errors
    /// Returns an error if that takes too long: with the end of a broker's log.
    pub async fn ready(&self) -> Result<()> {
        let running: Vec<usize> = (0..self.nodes().len())
            .filter(|&broker| self.nodes()[broker].daemon.is_running())
            .collect();
        let expected: Vec<i32> = running.iter().copied().map(node_id).collect();
        for broker in running {
            self.wait_until_listed(broker, &expected).await?;
        }
        Ok(())
    }

    /// Returns the value for `bootstrap.servers`: the direct addresses of all brokers.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Returns the value for `bootstrap.servers` of a client that connects through the proxies
    /// only. It is empty without [`KafkaOptions::behind_proxies`].
    #[must_use]
    pub fn proxied_bootstrap(&self) -> String {
        let proxied = self.nodes().iter().filter(|node| node.proxy.is_some());
        proxied.map(cluster::Node::advertised).collect::<Vec<_>>().join(",")
    }

    /// Starts a broker with [`Cluster::launch`] and waits until it is part of the cluster again.
    /// This needs two of three brokers; [`Kafka::up`] restores a cluster that lost its majority.
    ///
    /// # Errors
    /// Returns an error if it is running already, or does not start: with the end of its log.
    pub async fn restart(&self, broker: usize) -> Result<()> {
        self.launch(broker)?;
        self.wait_until_listed(broker, &[node_id(broker)]).await
    }

    /// Returns the broker that leads a partition.
    ///
    /// # Errors
    /// Returns an error if the partition has no leader, or no broker responds.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<usize> {
        let (bootstrap, topic) = (self.bootstrap.clone(), topic.to_owned());
        let node = tokio::task::spawn_blocking(move || {
            metadata::partition_leader(&bootstrap, &topic, partition)
        })
        .await??;
        usize::try_from(node - 1).context("the partition has no leader")
    }

    async fn wait_until_listed(&self, broker: usize, expected: &[i32]) -> Result<()> {
        let node = self.node(broker)?;
        let listed = || metadata::lists(node.address.clone(), expected);
        node.daemon.wait_until("the broker to join the cluster", START_TIMEOUT, listed).await
    }
}

/// Returns the id of a broker, which Kafka counts from 1.
fn node_id(broker: usize) -> i32 {
    i32::try_from(broker + 1).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
