//! Options of the worker.

use clap::Args;

use super::value::{MIB, TIB, size};

/// The worker, which moves queued events into the store.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Worker")]
pub struct WorkerConfig {
    /// Memory for events that the worker has fetched and not yet stored.
    #[arg(
        id = "worker_max_bytes",
        long = "worker-max-bytes",
        env = "EYEGO_WORKER_MAX_BYTES",
        default_value = "64MiB",
        value_name = "SIZE",
        value_parser = size::<usize>(8 * MIB..=TIB)
    )]
    pub max_bytes: usize,
}
