//! Options of the embedded queue and store.

use std::path::PathBuf;

use clap::Args;

use super::value::{MIB, PIB, size};

/// Embedded queue and store, used where Kafka or MongoDB is not configured.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Embedded")]
pub struct EmbeddedConfig {
    /// Directory for the files of the embedded queue and store.
    #[arg(long, env = "EYEGO_DATA_DIR", default_value = "./eyego-data", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Maximum size of the embedded queue on disk. Beyond it, ingest requests get
    /// 503.
    #[arg(
        long,
        env = "EYEGO_QUEUE_MAX_BYTES",
        default_value = "4GiB",
        value_name = "SIZE",
        value_parser = size::<u64>(MIB..=PIB)
    )]
    pub queue_max_bytes: u64,
}
