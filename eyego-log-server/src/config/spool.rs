//! Options of the server spool.

use std::path::PathBuf;

use clap::Args;

use super::value::{MIB, PIB, size};

/// The server spool, which keeps events on disk while Kafka is unavailable. It is
/// enabled if `dir` is set.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Spool")]
pub struct SpoolConfig {
    /// Directory for events that Kafka cannot accept at the moment. Needs a disk
    /// that outlives the process, and a separate directory for each process
    /// [default: none, the spool is disabled]
    #[arg(id = "spool_dir", long = "spool-dir", env = "EYEGO_SPOOL_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Maximum size of the spool on disk. Beyond it, ingest requests get 503.
    #[arg(
        id = "spool_max_bytes",
        long = "spool-max-bytes",
        env = "EYEGO_SPOOL_MAX_BYTES",
        default_value = "1GiB",
        value_name = "SIZE",
        value_parser = size::<u64>(MIB..=PIB)
    )]
    pub max_bytes: u64,
}
