//! Logging to standard error. Log lines contain ids, counts and reasons, never
//! personal data, except that the audit log contains the filters of queries.
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
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, registry};

use self::writer::LogWriter;
use crate::config::{Config, LogFormat};

/// Target of the audit log.
const AUDIT: &str = "audit";

/// Maximum number of lines that wait for standard error.
const MAX_QUEUED_LINES: usize = 4096;

/// Handle of the logging of this process.
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
    let filter = EnvFilter::try_new(with_audit(&config.log)).context("EYEGO_LOG")?;
    let stderr = std::io::stderr();
    let is_terminal = stderr.is_terminal();
    // A stalled write would hold the lock of `std::io::stderr()`.
    let sink = stderr.as_fd().try_clone_to_owned().context("cannot open standard error")?;
    let writer = LogWriter::start(File::from(sink), MAX_QUEUED_LINES, |count| {
        tracing::warn!(
            count,
            "log lines were dropped because standard error was not read fast enough"
        );
    })
    .context("cannot start the log thread")?;
    // The audit log is JSON in either format, so that programs can read it.
    let audit = json(&writer).with_filter(filter_fn(is_audit));
    let other = match config.log_format {
        LogFormat::Text => {
            let queue = writer.clone();
            layer().with_ansi(is_terminal).with_writer(move || queue.clone()).boxed()
        }
        LogFormat::Json => json(&writer).boxed(),
    };
    let other = other.with_filter(filter_fn(|metadata| !is_audit(metadata)));
    let started = registry().with(filter).with(audit).with(other).try_init();
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logging { writer })
}

fn json<S>(writer: &LogWriter) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let queue = writer.clone();
    layer().json().flatten_event(true).with_writer(move || queue.clone())
}

fn is_audit(metadata: &Metadata<'_>) -> bool {
    metadata.target() == AUDIT
}

/// Adds the audit log to a filter that does not mention it: a higher level for
/// other lines must not turn it off.
fn with_audit(filter: &str) -> String {
    let mentions_audit = filter.split(',').any(|directive| {
        directive.trim().strip_prefix(AUDIT).is_some_and(|rest| rest.starts_with(['=', '[']))
    });
    if mentions_audit { filter.to_owned() } else { format!("{filter},{AUDIT}=info") }
}

/// Logs a panic. The default hook would write to standard error, which blocks while it
/// is not read.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_does_not_turn_off_the_audit_log() {
        assert_eq!(with_audit("error"), "error,audit=info");
        assert_eq!(with_audit("info,auditor=debug"), "info,auditor=debug,audit=info");
        assert_eq!(with_audit("info, audit=off"), "info, audit=off");
    }
}
