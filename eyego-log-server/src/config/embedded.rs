//! The embedded queue and store.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::{Size, size};

#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// Where the embedded queue and store keep their files
    /// [default: ./eyego-data]
    #[arg(long, env = "EYEGO_DATA_DIR", global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// How large the embedded queue may grow; past it the answer is 503
    /// [default: 4 GiB]
    #[arg(long, env = "EYEGO_QUEUE_MAX_BYTES", global = true, value_name = "SIZE")]
    queue_max_bytes: Option<Size>,
}

/// The embedded queue and store.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Where the files are. `EYEGO_DATA_DIR`, default `./eyego-data`.
    pub data_dir: PathBuf,
    /// Bytes of the queue. `EYEGO_QUEUE_MAX_BYTES`, default 4 GiB.
    pub queue_max_bytes: u64,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            queue_max_bytes: self.queue_max_bytes.or(below.queue_max_bytes),
        }
    }

    pub(super) fn resolve(self) -> Result<EmbeddedConfig, ConfigError> {
        Ok(EmbeddedConfig {
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from("./eyego-data")),
            queue_max_bytes: size(
                "EYEGO_QUEUE_MAX_BYTES",
                self.queue_max_bytes,
                4 << 30,
                1 << 20..=1 << 50,
            )?,
        })
    }
}
