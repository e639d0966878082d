//! MongoDB 6.0.5: one replica set that a test process shares, or a private deployment (also of
//! three members, or a standalone) whose members a test kills, freezes and restarts.

mod admin;
mod layout;
mod shared;

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Purpose;
use crate::cluster::{self, Cluster};

pub use shared::SharedMongo;

/// The time for a start, a restart or an election on a small, busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const SET_NAME: &str = "rs0";

/// The layout of a private MongoDB.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// The number of members: 1 or 3. Default: 1.
    pub members: usize,
    /// Whether the members form a replica set. A standalone has one member. Default: true.
    pub replica_set: bool,
    /// What it is started for. Default: tests.
    pub purpose: Purpose,
    /// Additional arguments for each mongod.
    pub args: Vec<String>,
    /// Whether the set's configuration names the ports of proxies instead of the members' own.
    /// Default: false.
    pub behind_proxies: bool,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            members: 1,
            replica_set: true,
            purpose: Purpose::Tests,
            args: Vec::new(),
            behind_proxies: false,
        }
    }
}

impl MongoOptions {
    /// Returns the options for a replica set of three.
    #[must_use]
    pub fn three() -> Self {
        Self { members: 3, ..Self::default() }
    }

    /// Sets what it is started for.
    #[must_use]
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Puts a [`Proxy`](crate::proxy::Proxy) in front of each member. The traffic between members
    /// passes through it as well, because the set's configuration holds one address per member and
    /// drivers use that.
    #[must_use]
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
        self
    }

    /// Returns the options for one mongod without a replica set.
    #[must_use]
    pub fn standalone() -> Self {
        Self { replica_set: false, ..Self::default() }
    }
}

/// A private MongoDB of local processes; its nodes are the members. Dropping it kills them and
/// removes their data.
#[derive(Debug)]
pub struct Mongo {
    cluster: Cluster,
    uri: String,
    replica_set: bool,
}

impl Deref for Mongo {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Mongo {
    /// Returns the MongoDB that all tests of this process share. The first call starts it.
    ///
    /// # Errors
    /// Returns an error that says what to install or to set if no source is available.
    pub async fn shared() -> Result<SharedMongo> {
        Self::shared_with(Purpose::Tests).await
    }

    /// Like [`shared`](Self::shared), but for `purpose`. Only the first call of either decides.
    ///
    /// # Errors
    /// Returns the errors of [`shared`](Self::shared).
    pub async fn shared_with(purpose: Purpose) -> Result<SharedMongo> {
        shared::get(purpose).await
    }

    /// Starts a private MongoDB and waits until it is ready.
    ///
    /// # Errors
    /// Returns an error if mongod is not available, or if it does not start: with the end of its
    /// log.
    pub async fn start(options: MongoOptions) -> Result<Self> {
        cluster::start_on_free_ports(|| async {
            let mongo = Self::prepare(options.clone()).await?;
            mongo.up().await.map_err(|error| mongo.start_error(error))?;
            Ok(mongo)
        })
        .await
    }

    /// Prepares a private MongoDB without starting it. Its URI is final. [`Mongo::up`] starts it.
    ///
    /// # Errors
    /// Returns an error if mongod is not available.
    pub async fn prepare(options: MongoOptions) -> Result<Self> {
        tokio::task::spawn_blocking(move || layout::lay_out(&options)).await?
    }

    /// Starts all members that are not running, initiates the replica set unless that has been
    /// done, and waits until a write reaches a majority.
    ///
    /// # Errors
    /// Returns an error if a member does not start: with the end of its log.
    pub async fn up(&self) -> Result<()> {
        self.launch_all()?;
        for node in self.nodes() {
            let ping = || admin::ping(&node.address);
            node.daemon.wait_until("the member to respond", START_TIMEOUT, ping).await?;
        }
        if self.replica_set {
            let first = self.nodes().first().context("a replica set has members")?;
            let hosts: Vec<String> = self.nodes().iter().map(cluster::Node::advertised).collect();
            admin::initiate(&first.address, SET_NAME, &hosts).await?;
        }
        self.ready().await
    }

    /// Waits until there is a primary that accepts a majority write.
    ///
    /// # Errors
    /// Returns an error if that takes too long: with the end of the first running member's log.
    pub async fn ready(&self) -> Result<()> {
        let mut nodes = self.nodes().iter();
        let node = nodes.find(|node| node.daemon.is_running()).context("no member is running")?;
        let write = || admin::majority_write(&self.uri);
        node.daemon.wait_until("a majority write to succeed", START_TIMEOUT, write).await
    }

    /// Returns the connection string: all members, and the name of the replica set if it is one.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Starts a member with [`Cluster::launch`] and waits until it is primary or secondary again.
    /// This needs a majority; [`Mongo::up`] restores a set that lost it.
    ///
    /// # Errors
    /// Returns an error if it is running already, or does not start: with the end of its log.
    pub async fn restart(&self, member: usize) -> Result<()> {
        self.launch(member)?;
        let node = self.node(member)?;
        let serves = || admin::serves(&node.address);
        node.daemon.wait_until("the member to serve", START_TIMEOUT, serves).await?;
        if self.nodes().len() == 1 { self.ready().await } else { Ok(()) }
    }

    /// Returns the member that is primary.
    ///
    /// # Errors
    /// Returns an error if there is no primary.
    pub async fn primary(&self) -> Result<usize> {
        for (index, node) in self.nodes().iter().enumerate() {
            if node.daemon.is_running() && admin::is_primary(&node.address).await.unwrap_or(false) {
                return Ok(index);
            }
        }
        bail!("no member is primary")
    }

    /// Makes the primary step down. It cannot be elected again for `period`, so a set of one has
    /// no primary in that time.
    ///
    /// # Errors
    /// Returns an error if there is no primary, or it refuses.
    pub async fn step_down(&self, period: Duration) -> Result<()> {
        let primary = self.primary().await?;
        admin::step_down(&self.node(primary)?.address, period).await
    }
}

#[cfg(test)]
mod tests;
