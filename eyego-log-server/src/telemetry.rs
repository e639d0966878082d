//! Logging to standard error. Log lines contain ids, counts and reasons, never
//! personal data.
//!
//! Logging never blocks: if standard error is not read, lines are dropped and
//! counted.

mod writer;

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use self::writer::LogWriter;
use crate::config::{Config, LogFormat};

/// Lines that wait for standard error, at most.
const MAX_QUEUED_LINES: usize = 4096;

/// The started logging.
#[derive(Debug, Clone)]
pub struct Logging {
    writer: LogWriter,
}

impl Logging {
    /// Returns the counter of dropped lines.
    #[must_use]
    pub fn dropped_lines(&self) -> Arc<AtomicU64> {
        self.writer.dropped()
    }

    /// Waits until the lines logged so far are written or `timeout` passes.
    pub fn flush(&self, timeout: Duration) {
        self.writer.flush(timeout);
    }
}

/// Starts logging, and logs panics instead of printing them.
///
/// # Errors
/// Returns an error if the filter is invalid or logging has been started before.
pub fn start(config: &Config) -> anyhow::Result<Logging> {
    let filter = EnvFilter::try_new(&config.log).context("EYEGO_LOG")?;
    let stderr = std::io::stderr();
    let is_terminal = stderr.is_terminal();
    // Not through `std::io::stderr()`, whose lock a stalled write would hold.
    let sink = stderr.as_fd().try_clone_to_owned().context("cannot open standard error")?;
    let writer = LogWriter::start(File::from(sink), MAX_QUEUED_LINES, |count| {
        tracing::warn!(
            count,
            "log lines were dropped because standard error was not read fast enough"
        );
    })
    .context("cannot start the log thread")?;
    let queue = writer.clone();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || queue.clone());
    let started = match config.log_format {
        LogFormat::Text => builder.with_ansi(is_terminal).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logging { writer })
}

/// The default hook writes to standard error, which blocks while it is not read.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown reason");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    tracing::error!("thread '{name}' panicked at {location}: {message}");
}
