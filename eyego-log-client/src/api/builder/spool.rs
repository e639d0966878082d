//! The options of the spool (feature `spool`).

use std::path::PathBuf;
use std::time::Duration;

use super::Builder;
use super::env::duration;
use crate::error::ConfigError;
use crate::spool::SpoolOptions;

const HOUR: Duration = Duration::from_secs(3600);

/// When what is in the spool is forced to the disk (`fsync`).
///
/// The death of the process costs nothing that is in the spool, whatever is
/// chosen here: it matters where the power fails or the system crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolSync {
    /// With each batch, before it is sent.
    EachBatch,
    /// This long after something was written; 1 ms to an hour.
    Every(Duration),
}

impl Default for SpoolSync {
    /// Every second.
    fn default() -> Self {
        Self::Every(Duration::from_secs(1))
    }
}

/// The options as they were given.
#[derive(Debug, Clone)]
pub(crate) struct SpoolDraft {
    dir: Option<PathBuf>,
    max_bytes: u64,
    sync: SpoolSync,
}

impl Default for SpoolDraft {
    fn default() -> Self {
        Self { dir: None, max_bytes: 1 << 30, sync: SpoolSync::default() }
    }
}

impl Builder {
    /// A directory in which events are kept until they are delivered, so that
    /// they outlive the process: what is found there is delivered first. It is
    /// made if it is not there, and belongs to one client at a time: a second
    /// one gets an error from [`build`](Self::build). Default: none, no spool.
    /// Needs the feature `spool`; what it promises is in
    /// [`guarantees`](crate::docs::guarantees).
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let spool_dir = dir.path().join("spool");
    /// # let builder = Client::builder("http://localhost:9").shutdown_timeout(std::time::Duration::ZERO);
    /// let client = builder.spool_dir(&spool_dir).build()?;
    /// println!("{} events of an earlier process", client.stats().recovered);
    /// client.log(Event::new("user-123", "PAID"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spool_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spool.dir = Some(dir.into());
        self
    }

    /// Bytes that the spool's files may occupy. Default 1 GiB; at least eight
    /// times [`max_batch_bytes`](Self::max_batch_bytes). When they do, events
    /// wait in memory, and then [`overflow`](Self::overflow) decides.
    pub fn spool_max_bytes(mut self, bytes: u64) -> Self {
        self.spool.max_bytes = bytes;
        self
    }

    /// When the spool is forced to the disk. Default
    /// [`SpoolSync::Every`] second.
    pub fn spool_sync(mut self, sync: SpoolSync) -> Self {
        self.spool.sync = sync;
        self
    }
}

impl SpoolDraft {
    /// Reads the variables.
    ///
    /// # Errors
    /// The one that cannot be read.
    pub(super) fn read(
        &mut self,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        const MAX_BYTES: &str = "EYEGO_LOG_SPOOL_MAX_BYTES";
        const SYNC: &str = "EYEGO_LOG_SPOOL_SYNC";

        self.dir = read("EYEGO_LOG_SPOOL_DIR").map(Into::into);
        if let Some(value) = read(MAX_BYTES) {
            let fault = || format!("must be a whole number, not {value}");
            self.max_bytes =
                value.trim().parse().map_err(|_| ConfigError::new(MAX_BYTES, fault()))?;
        }
        if let Some(value) = read(SYNC) {
            let fault = || format!("must be batch or a duration such as 500ms or 5s, not {value}");
            self.sync = match value.trim() {
                "batch" => SpoolSync::EachBatch,
                text => {
                    let interval = duration(text).ok_or_else(|| ConfigError::new(SYNC, fault()))?;
                    SpoolSync::Every(interval)
                }
            };
        }
        Ok(())
    }

    /// `None` where there is to be no spool.
    ///
    /// # Errors
    /// The option that is unusable.
    pub(super) fn validate(
        self,
        max_batch_bytes: usize,
    ) -> Result<Option<SpoolOptions>, ConfigError> {
        let Self { dir, max_bytes, sync } = self;
        let Some(dir) = dir else { return Ok(None) };
        let least = max_batch_bytes as u64 * 8;
        if max_bytes < least {
            let fault = format!("must be at least {least} bytes, not {max_bytes}");
            return Err(ConfigError::new("spool_max_bytes", fault));
        }
        if let SpoolSync::Every(interval) = sync
            && !(Duration::from_millis(1)..=HOUR).contains(&interval)
        {
            let fault = format!("must be from 1ms to {HOUR:?}, not {interval:?}");
            return Err(ConfigError::new("spool_sync", fault));
        }
        Ok(Some(SpoolOptions { dir, max_bytes, sync }))
    }
}
