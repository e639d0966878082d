//! Our own server as a child process that a test kills, freezes and restarts.

mod binary;
mod builder;
mod health;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};

pub use builder::ServerBuilder;

use crate::process::{Daemon, Signal};
use crate::scratch::Scratch;

/// How long the process may take until it listens: it waits for nothing at its start.
const LIVE_PATIENCE: Duration = Duration::from_secs(30);
/// The server's own deadline to stop is 25 s.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// A server that runs as a process of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    // Before the directory: what is dropped first no longer writes into it.
    daemon: Daemon,
    port: u16,
    data_dir: PathBuf,
    _scratch: Scratch,
}

impl Server {
    /// A server with no settings but a free port and an empty data directory.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// `http://127.0.0.1:<port>`, the same after a restart.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its embedded parts.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// SIGKILL: the server is gone when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.daemon.kill()
    }

    /// SIGTERM, then waits for the end: a graceful stop.
    ///
    /// # Errors
    /// When it does not run, or outlives its own deadline by far.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        self.daemon.terminate(STOP_PATIENCE).await
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it does not run, or still runs when the time is up.
    pub async fn wait_exit(&self, patience: Duration) -> Result<ExitStatus> {
        self.daemon.wait_exit(patience).await
    }

    /// Sends any signal and does not wait for its effect.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)
    }

    /// SIGSTOP: the server is silent, its connections stay open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.daemon.pause()
    }

    /// SIGCONT after [`Server::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.daemon.resume()
    }

    /// Starts it again on the same port, settings and data, and returns once it listens. One
    /// that still runs is killed first.
    ///
    /// # Errors
    /// When it ends or is silent instead: with the end of its log.
    pub async fn restart(&self) -> Result<()> {
        if self.is_running() {
            self.kill()?;
        }
        self.daemon.launch()?;
        self.wait_live(LIVE_PATIENCE).await
    }

    /// Whether the process runs at this moment.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
    }

    /// Waits until `GET /health/live` answers 200.
    ///
    /// # Errors
    /// When it ends first or the time is up: with the last answer and the end of its log.
    pub async fn wait_live(&self, patience: Duration) -> Result<()> {
        self.daemon.wait_until(patience, || health::ok(self.port, "/health/live")).await
    }

    /// Waits until `GET /health/ready` answers 200.
    ///
    /// # Errors
    /// When it ends first or the time is up: with the last answer and the end of its log.
    pub async fn wait_ready(&self, patience: Duration) -> Result<()> {
        self.daemon.wait_until(patience, || health::ok(self.port, "/health/ready")).await
    }

    /// The value of one series at `GET /metrics`, by its name with its labels; `None` where the
    /// server does not show it.
    ///
    /// # Errors
    /// When it does not answer, or the value is no whole number.
    pub async fn sample(&self, series: &str) -> Result<Option<i64>> {
        let answer = reqwest::get(format!("{}/metrics", self.base_url())).await?;
        let text = answer.error_for_status()?.text().await?;
        let mut samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let value = samples.find_map(|(name, value)| (name == series).then_some(value));
        value.map(|value| value.parse().with_context(|| format!("{series} is {value}"))).transpose()
    }

    /// What it has written to stdout and stderr so far, over all its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.daemon.pid()
    }

    /// The memory that it occupies (RSS).
    ///
    /// # Errors
    /// When it does not run.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS in its status")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// The files and sockets that it has open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn open_files(&self) -> Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()?))?.count() as u64)
    }

    /// The processor time that it has used since its last start, in user and kernel mode.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cpu_seconds(&self) -> Result<f64> {
        crate::load::cpu_seconds(self.pid()?)
    }
}

#[cfg(test)]
mod tests;
