//! The spool before Kafka.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::{Size, size};

#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// A directory, on a disk that outlives the process, for what Kafka cannot
    /// take at the moment; one for each process [default: none, and no spool]
    #[arg(
        id = "spool_dir",
        long = "spool-dir",
        env = "EYEGO_SPOOL_DIR",
        global = true,
        value_name = "DIR"
    )]
    dir: Option<PathBuf>,

    /// How large the spool may grow; past it the answer is 503
    /// [default: 1 GiB]
    #[arg(
        id = "spool_max_bytes",
        long = "spool-max-bytes",
        env = "EYEGO_SPOOL_MAX_BYTES",
        global = true,
        value_name = "SIZE"
    )]
    max_bytes: Option<Size>,
}

/// The spool before Kafka.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Where its file is. `EYEGO_SPOOL_DIR`; without it there is no spool.
    pub dir: PathBuf,
    /// Bytes of the file. `EYEGO_SPOOL_MAX_BYTES`, default 1 GiB.
    pub max_bytes: u64,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self { dir: self.dir.or(below.dir), max_bytes: self.max_bytes.or(below.max_bytes) }
    }

    pub(super) fn resolve(self) -> Result<Option<SpoolConfig>, ConfigError> {
        let max_bytes = size("EYEGO_SPOOL_MAX_BYTES", self.max_bytes, 1 << 30, 1 << 20..=1 << 50)?;
        Ok(self.dir.map(|dir| SpoolConfig { dir, max_bytes }))
    }
}
