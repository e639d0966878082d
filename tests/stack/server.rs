//! The server as a child process that a test kills, freezes and restarts.

mod binary;
mod builder;
mod health;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};

pub use builder::ServerBuilder;

use crate::keys::client_with;
use crate::process::{Daemon, Signal};
use crate::scratch::Scratch;

/// The time until the process listens. It does not wait for Kafka or MongoDB.
const LIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the server's own shutdown timeout of 25 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// The time to respond with the metrics.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A server process. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    // Dropped before the directory, so that the process no longer writes into it.
    daemon: Daemon,
    port: u16,
    data_dir: PathBuf,
    _scratch: Scratch,
}

impl Server {
    /// Returns a builder for a server with default settings, a free port and an empty data directory.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Returns `http://127.0.0.1:<port>`. It stays the same over restarts.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the address. It stays the same over restarts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns the port. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of its embedded queue and store.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Sends SIGKILL and waits until the process is gone.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn kill(&self) -> Result<()> {
        self.daemon.kill()
    }

    /// Sends SIGTERM and waits until the server has shut down.
    ///
    /// # Errors
    /// Returns an error if it is not running, or exits much later than its own shutdown timeout.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        self.daemon.terminate(STOP_TIMEOUT).await
    }

    /// Waits until it exits by itself.
    ///
    /// # Errors
    /// Returns an error if it is not running, or has not exited when `timeout` passes.
    pub async fn wait_exit(&self, timeout: Duration) -> Result<ExitStatus> {
        self.daemon.wait_exit(timeout).await
    }

    /// Sends a signal without waiting for its effect.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)
    }

    /// Sends SIGSTOP. The server is silent then, and its connections stay open.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn pause(&self) -> Result<()> {
        self.daemon.pause()
    }

    /// Sends SIGCONT after [`Server::pause`].
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn resume(&self) -> Result<()> {
        self.daemon.resume()
    }

    /// Stops reading its stderr, so that the pipe is full. It must have been started with
    /// [`ServerBuilder::relayed_stderr`].
    ///
    /// # Errors
    /// Returns an error if it is not running, or its stderr is not relayed.
    pub fn stall_stderr(&self) -> Result<()> {
        self.daemon.stall_stderr()
    }

    /// Reads its stderr again after [`Server::stall_stderr`].
    ///
    /// # Errors
    /// As [`Server::stall_stderr`].
    pub fn resume_stderr(&self) -> Result<()> {
        self.daemon.resume_stderr()
    }

    /// Starts it again with the same port, settings and data, and waits until it listens. If it is
    /// running, it is killed first.
    ///
    /// # Errors
    /// Returns an error with the end of its log if it exits or does not respond.
    pub async fn restart(&self) -> Result<()> {
        if self.is_running() {
            self.kill()?;
        }
        self.daemon.launch()?;
        self.wait_live(LIVE_TIMEOUT).await
    }

    /// Returns whether the process is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
    }

    /// Waits until `GET /health/live` returns 200.
    ///
    /// # Errors
    /// Returns an error with the last response and the end of its log if it exits first or
    /// `timeout` passes.
    pub async fn wait_live(&self, timeout: Duration) -> Result<()> {
        self.wait_for_health("/health/live", timeout).await
    }

    /// Waits until `GET /health/ready` returns 200.
    ///
    /// # Errors
    /// Returns an error with the last response and the end of its log if it exits first or
    /// `timeout` passes.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.wait_for_health("/health/ready", timeout).await
    }

    async fn wait_for_health(&self, path: &str, timeout: Duration) -> Result<()> {
        let what = format!("GET {path} to return 200");
        self.daemon.wait_until(&what, timeout, || health::ok(self.port, path)).await
    }

    /// Returns the value of one series of `GET /metrics` of a server without keys, by its name with its labels, or `None` if
    /// the server does not export it.
    ///
    /// # Errors
    /// Returns an error if the server does not respond, or the value is not an integer.
    pub async fn sample(&self, series: &str) -> Result<Option<i64>> {
        sample(&self.base_url(), series, None).await
    }

    /// Returns what it has written to stdout and stderr, over all its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Returns the process id.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn pid(&self) -> Result<u32> {
        self.daemon.pid()
    }

    /// Returns its resident set size, in bytes.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS in its status")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Returns the number of its open files and sockets.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn open_files(&self) -> Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()?))?.count() as u64)
    }

    /// Returns the user and system CPU time since its last start, in seconds.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn cpu_seconds(&self) -> Result<f64> {
        crate::process::cpu_seconds(self.pid()?)
    }
}

/// Returns the value of one series of `GET /metrics` of the server at this base URL, or `None` if the
/// server does not export it. `token` is one with the scope `metrics`, if the server has keys.
///
/// # Errors
/// Returns an error if the server does not respond, or the value is not an integer.
pub(crate) async fn sample(
    base_url: &str,
    series: &str,
    token: Option<&str>,
) -> Result<Option<i64>> {
    let client = client_with(token, SAMPLE_TIMEOUT)?;
    let response = client.get(format!("{base_url}/metrics")).send().await?;
    let text = response.error_for_status()?.text().await?;
    let mut samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let value = samples.find_map(|(name, value)| (name == series).then_some(value));
    value.map(|value| value.parse().with_context(|| format!("{series} is {value}"))).transpose()
}

#[cfg(test)]
mod tests;
