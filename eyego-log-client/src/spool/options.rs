//! The options of the spool.

use std::path::PathBuf;
use std::time::Duration;

/// When spooled events are synced to disk (`fsync`).
///
/// This matters only for a power failure or a crash of the operating system.
/// Spooled events survive the death of the process with either setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolSync {
    /// Syncs each batch before it is sent.
    EachBatch,
    /// Syncs this long after a write; 1 ms to 1 h.
    Every(Duration),
}

impl Default for SpoolSync {
    /// Returns [`Every`](Self::Every) with one second.
    fn default() -> Self {
        Self::Every(Duration::from_secs(1))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SpoolOptions {
    pub(crate) dir: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) sync: SpoolSync,
    /// Events that were spooled longer ago are not delivered.
    pub(crate) max_age: Option<Duration>,
}
