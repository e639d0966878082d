//! What a private Kafka cluster and a private MongoDB deployment have in common: numbered
//! processes, each with a proxy in front if the test wants one.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Daemon;
use crate::proxy::Proxy;
use crate::scratch::Scratch;

/// The time in which a broker hands over its partitions and exits, or a primary waits for a
/// secondary to catch up and exits.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const START_ATTEMPTS: usize = 3;

/// The nodes of a private cluster of local processes, numbered from 0: the brokers of
/// [`Kafka`](crate::kafka::Kafka) or the members of [`Mongo`](crate::mongodb::Mongo). Dropping it
/// kills them and removes their data.
#[derive(Debug)]
pub struct Cluster {
    // Dropped before the directory, so that the processes no longer write into it.
    nodes: Vec<Node>,
    _scratch: Scratch,
}

/// One process of a cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) daemon: Daemon,
    /// The address it listens on.
    pub(crate) address: String,
    pub(crate) proxy: Option<Proxy>,
}

impl Node {
    /// Returns the address that clients connect to.
    pub(crate) fn advertised(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("127.0.0.1:{}", proxy.port()),
            None => self.address.clone(),
        }
    }
}

impl Cluster {
    pub(crate) fn new(nodes: Vec<Node>, scratch: Scratch) -> Self {
        Self { nodes, _scratch: scratch }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn node(&self, index: usize) -> Result<&Node> {
        self.nodes.get(index).with_context(|| format!("no node {index}"))
    }

    /// Starts the nodes that are not running.
    pub(crate) fn launch_all(&self) -> Result<()> {
        self.nodes
            .iter()
            .filter(|node| !node.daemon.is_running())
            .try_for_each(|node| node.daemon.launch())
    }

    /// Sends SIGKILL to a node and waits until it is gone.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn kill(&self, index: usize) -> Result<()> {
        self.node(index)?.daemon.kill()
    }

    /// Sends SIGTERM to a node and waits until it exits. A broker hands over its partitions first,
    /// and a primary steps down.
    ///
    /// # Errors
    /// Returns an error if it is not running, or does not exit in time.
    pub async fn stop(&self, index: usize) -> Result<()> {
        self.node(index)?.daemon.terminate(STOP_TIMEOUT).await.map(drop)
    }

    /// Sends SIGSTOP to a node. It is silent then, and its connections stay open.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.node(index)?.daemon.pause()
    }

    /// Sends SIGCONT to a node after [`pause`](Self::pause).
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn resume(&self, index: usize) -> Result<()> {
        self.node(index)?.daemon.resume()
    }

    /// Starts a node that was killed or stopped, on the same port and data, and returns at once.
    ///
    /// # Errors
    /// Returns an error if it is running.
    pub fn launch(&self, index: usize) -> Result<()> {
        self.node(index)?.daemon.launch()
    }

    /// Returns the proxy in front of a node.
    ///
    /// # Errors
    /// Returns an error if there is no such node, or the cluster was started without proxies.
    pub fn proxy(&self, index: usize) -> Result<&Proxy> {
        self.node(index)?.proxy.as_ref().context("the cluster was started without proxies")
    }

    /// Returns the process id of a node.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn pid(&self, index: usize) -> Result<u32> {
        self.node(index)?.daemon.pid()
    }

    /// Returns what a node has logged so far.
    ///
    /// # Errors
    /// Returns an error if there is no such node.
    pub fn log(&self, index: usize) -> Result<String> {
        Ok(self.node(index)?.daemon.log())
    }

    /// Marks the error of a failed start if another process took one of the ports, so that
    /// [`start_on_free_ports`] tries again.
    pub(crate) fn start_error(&self, error: anyhow::Error) -> anyhow::Error {
        let is_taken = |node: &Node| node.daemon.log().contains("Address already in use");
        if self.nodes.iter().any(is_taken) { error.context(PortTaken) } else { error }
    }
}

#[derive(Debug)]
struct PortTaken;

impl fmt::Display for PortTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another process took a port before the node could listen on it")
    }
}

/// Starts a cluster, and tries again on other ports if another process took one of them.
pub(crate) async fn start_on_free_ports<T, Attempt>(start: impl Fn() -> Attempt) -> Result<T>
where
    Attempt: Future<Output = Result<T>>,
{
    for _ in 1..START_ATTEMPTS {
        match start().await {
            Err(error) if error.is::<PortTaken>() => {}
            started => return started,
        }
    }
    start().await
}
