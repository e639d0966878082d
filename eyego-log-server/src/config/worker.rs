//! The worker.

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::{Size, memory};

#[derive(Debug, Default, Clone, Copy, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// Memory for what the worker has fetched and is storing [default: 64 MiB]
    #[arg(long, env = "EYEGO_WORKER_MAX_BYTES", global = true, value_name = "SIZE")]
    worker_max_bytes: Option<Size>,
}

/// The worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Bytes of what it has fetched and is storing. `EYEGO_WORKER_MAX_BYTES`,
    /// default 64 MiB.
    pub max_bytes: usize,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self { worker_max_bytes: self.worker_max_bytes.or(below.worker_max_bytes) }
    }

    pub(super) fn resolve(self) -> Result<WorkerConfig, ConfigError> {
        let max_bytes =
            memory("EYEGO_WORKER_MAX_BYTES", self.worker_max_bytes, 64 << 20, 8 << 20..=1 << 40)?;
        Ok(WorkerConfig { max_bytes })
    }
}
