//! Apache Kafka 4.1.0 in `KRaft` mode: one broker shared by a test process, or a private cluster
//! whose brokers a test kills, freezes and restarts.

mod layout;
mod metadata;
mod properties;
mod shared;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Purpose;
use crate::process::Daemon;
use crate::proxy::Proxy;
use crate::scratch::Scratch;

pub use shared::SharedKafka;

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
    /// What it is for.
    pub purpose: Purpose,
    /// Whether each broker tells its clients to come through a [`Proxy`]. The brokers speak to
    /// one another directly. Default false.
    pub behind_proxies: bool,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { brokers: 1, properties: Vec::new(), purpose: Purpose::Tests, behind_proxies: false }
    }
}

impl KafkaOptions {
    /// Three brokers.
    #[must_use]
    pub fn three() -> Self {
        Self { brokers: 3, ..Self::default() }
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Puts a [`Proxy`] between each broker and its clients: see [`Kafka::proxied_bootstrap`].
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
    proxy: Option<Proxy>,
}

impl Kafka {
    /// The Kafka that all cases of this process share, started at the first call.
    ///
    /// # Errors
    /// When no way leads to one: the message says what to install or to set.
    pub async fn shared() -> Result<SharedKafka> {
        Self::shared_with(Purpose::Tests).await
    }

    /// The same, set up for this, if this is the first call.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub async fn shared_with(purpose: Purpose) -> Result<SharedKafka> {
        shared::get(purpose).await
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
        tokio::task::spawn_blocking(move || layout::lay_out(&options)).await?
    }

    /// Starts all brokers that do not run and waits until each of them knows all.
    ///
    /// # Errors
    /// When a broker does not come up: with the end of its log.
    pub async fn up(&self) -> Result<()> {
        for broker in self.brokers.iter().filter(|broker| !broker.daemon.is_running()) {
            broker.daemon.launch()?;
        }
        self.ready().await
    }

    /// Waits until each broker that runs knows all that run. None may be paused.
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

    /// The value for `bootstrap.servers`: all brokers, directly.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The value for `bootstrap.servers` of a client that sees the brokers through their proxies
    /// only; without [`KafkaOptions::behind_proxies`] there are none, and it is empty.
    #[must_use]
    pub fn proxied_bootstrap(&self) -> String {
        let proxies = self.brokers.iter().filter_map(|broker| broker.proxy.as_ref());
        let addresses: Vec<_> =
            proxies.map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        addresses.join(",")
    }

    /// The proxy before a broker.
    ///
    /// # Errors
    /// When there is no such broker, or the cluster was not started
    /// [`behind_proxies`](KafkaOptions::behind_proxies).
    pub fn proxy(&self, broker: usize) -> Result<&Proxy> {
        let broker =
            self.brokers.get(broker).with_context(|| format!("there is no broker {broker}"))?;
        broker.proxy.as_ref().context("the brokers are not behind proxies")
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
        self.daemon(broker)?.terminate(STOP_PATIENCE).await.map(drop)
    }

    /// SIGSTOP: the broker is silent, its connections stay open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?.pause()
    }

    /// SIGCONT after [`Kafka::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, broker: usize) -> Result<()> {
        self.daemon(broker)?.resume()
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
        let node = tokio::task::spawn_blocking(move || {
            metadata::partition_leader(&bootstrap, &topic, partition)
        })
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
        let broker =
            self.brokers.get(broker).with_context(|| format!("there is no broker {broker}"))?;
        Ok(&broker.daemon)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.brokers.len()).filter(|&index| self.brokers[index].daemon.is_running())
    }

    async fn wait_for(&self, broker: usize, expected: &[i32]) -> Result<()> {
        let Broker { daemon, address, .. } = &self.brokers[broker];
        daemon.wait_until(PATIENCE, || metadata::knows(address.clone(), expected)).await
    }
}

/// Kafka wants ids from 1.
fn node_id(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
