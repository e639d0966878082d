//! The worker.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::{Size, Span, memory};

#[derive(Debug, Default, Clone, Copy, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// Memory for what the worker has fetched and is storing [default: 64 MiB]
    #[arg(long, env = "EYEGO_WORKER_MAX_BYTES", global = true, value_name = "SIZE")]
    worker_max_bytes: Option<Size>,

    /// While requests need the machine a log waits for so long, at most, before
    /// it is stored; 0s: never (embedded queue) [default: 10s]
    #[arg(long, env = "EYEGO_WORKER_MAX_DELAY", global = true, value_name = "DURATION")]
    worker_max_delay: Option<Span>,
}

/// The worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Bytes of what it has fetched and is storing. `EYEGO_WORKER_MAX_BYTES`,
    /// default 64 MiB.
    pub max_bytes: usize,
    /// How long a log in the embedded queue waits, at most, for requests that
    /// need the machine. `EYEGO_WORKER_MAX_DELAY`, default 10 s.
    pub max_delay: Duration,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            worker_max_bytes: self.worker_max_bytes.or(below.worker_max_bytes),
            worker_max_delay: self.worker_max_delay.or(below.worker_max_delay),
        }
    }

    pub(super) fn resolve(self) -> Result<WorkerConfig, ConfigError> {
        let max_bytes =
            memory("EYEGO_WORKER_MAX_BYTES", self.worker_max_bytes, 64 << 20, 8 << 20..=1 << 40)?;
        let max_delay = self.worker_max_delay.map_or(Duration::from_secs(10), |span| span.0);
        Ok(WorkerConfig { max_bytes, max_delay })
    }
}
