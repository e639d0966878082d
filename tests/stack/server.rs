//! Our own server as a child process that a test kills, freezes and restarts.

mod binary;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::port;
use crate::process::{Daemon, Signal, Spec};
use crate::scratch::Scratch;

/// How long the process may take until it listens: it waits for nothing at its start.
const LIVE_PATIENCE: Duration = Duration::from_secs(30);
/// The server's own deadline to stop is 25 s.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// How long one look at a health route may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The unit of `/proc/<pid>/stat`: 100 a second on every Linux, whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

/// What to start; see [`Server::builder`].
#[derive(Debug, Clone, Default)]
pub struct ServerBuilder {
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    data_dir: Option<PathBuf>,
    port: Option<u16>,
    binary: Option<PathBuf>,
}

impl ServerBuilder {
    /// Sets an environment variable; no other `EYEGO_…` variable reaches the server, except
    /// `EYEGO_LISTEN` and `EYEGO_DATA_DIR`, which the harness sets.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Keeps the data in `dir`, which outlives the server. By default it has a directory that
    /// outlives restarts but not the [`Server`].
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Listens on a given port of 127.0.0.1 instead of a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Runs another binary, such as an older version.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Starts the server and returns once it listens (not: once it is ready).
    ///
    /// # Errors
    /// When it cannot be built, or ends or is silent instead: with the end of its log.
    pub async fn start(self) -> Result<Server> {
        let server = self.launch().await?;
        server.wait_live(LIVE_PATIENCE).await?;
        Ok(server)
    }

    /// Starts the server and returns at once: for those that are expected to refuse to run.
    ///
    /// # Errors
    /// When it cannot be built or spawned.
    pub async fn launch(self) -> Result<Server> {
        let binary = match self.binary {
            Some(binary) => binary,
            None => binary::path().await?,
        };
        let scratch = Scratch::new("server")?;
        let data_dir = self.data_dir.unwrap_or_else(|| scratch.path().join("data"));
        let port = match self.port {
            Some(port) => port,
            None => port::free()?,
        };
        let mut spec = Spec::new(
            "eyego-log-server",
            binary,
            scratch.path().join("server.log"),
        )
        .args(self.args)
        .env("EYEGO_LISTEN", format!("127.0.0.1:{port}"))
        .env("EYEGO_DATA_DIR", &data_dir)
        // Not the package's directory: whatever is written by mistake vanishes as well.
        .dir(scratch.path());
        for (key, value) in self.envs {
            spec = spec.env(key, value);
        }
        let daemon = Daemon::new(spec);
        daemon.launch()?;
        Ok(Server {
            daemon,
            port,
            data_dir,
            _scratch: scratch,
        })
    }
}

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
        self.signal(Signal::Stop)
    }

    /// SIGCONT after [`Server::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Continue)
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
        self.daemon
            .wait_until(patience, async || healthy(self.port, "/health/live").await)
            .await
    }

    /// Waits until `GET /health/ready` answers 200.
    ///
    /// # Errors
    /// When it ends first or the time is up: with the last answer and the end of its log.
    pub async fn wait_ready(&self, patience: Duration) -> Result<()> {
        self.daemon
            .wait_until(patience, async || healthy(self.port, "/health/ready").await)
            .await
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

    /// The processor time that it has used since its last start, in user and kernel mode.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The second field is the name, in parentheses, and may hold anything; the times are
        // fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no name in its stat")?;
        let times: Vec<f64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(times.iter().sum::<f64>() / TICKS_PER_SECOND)
    }
}

async fn healthy(port: u16, path: &str) -> Result<()> {
    let answer = tokio::time::timeout(PROBE_TIMEOUT, get(port, path))
        .await
        .with_context(|| format!("GET {path} is not answered"))??;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("GET {path}: {answer}");
    }
    Ok(())
}

/// By hand: the TLS setup of an HTTP client must not matter to the harness.
async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
