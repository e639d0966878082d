//! The options of the spool.

use std::path::PathBuf;
use std::time::Duration;

use super::env::Variables;
use super::{ClientBuilder, parse};
use crate::model::errors::ConfigError;
use crate::spool::{SpoolOptions, SpoolSync};

const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

const MIN_AGE: Duration = Duration::from_secs(1);
/// 10 years of 365.25 days.
const MAX_AGE: Duration = Duration::from_secs(87_660 * 3600);

/// The minimum size of the spool, in batches of the maximum size.
const MIN_BATCHES: u64 = 8;

/// The maximum size of the spool unless the program sets another one, in bytes.
const DEFAULT_MAX_BYTES: u64 = 1 << 30;

impl ClientBuilder {
    /// Sets a directory in which events are kept until they are delivered, so
    /// that they survive the death of the process. Defaults to none, which means
    /// no spool. Needs the crate feature `spool`.
    ///
    /// The directory is created if it does not exist. Only one client at a time
    /// can use it; [`build`](Self::build) returns an error otherwise. Events that
    /// an earlier process left there are delivered first.
    /// [`guarantees`](crate::docs::guarantees) describes the details.
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let spool_dir = dir.path().join("spool");
    /// # let builder = Client::builder("http://localhost:9").shutdown_timeout(std::time::Duration::ZERO);
    /// let client = builder.spool_dir(&spool_dir).build()?;
    /// println!("{} events from an earlier process", client.stats().recovered);
    /// client.log(Event::new("user-123", "PAID"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spool_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spool_dir = Some(dir.into());
        self
    }

    /// Sets the maximum size of all spool files together, in bytes. Defaults to
    /// 1 GiB; at least eight times [`max_batch_bytes`](Self::max_batch_bytes).
    ///
    /// When the spool is full, events wait in memory. When the buffer is full as
    /// well, [`overflow`](Self::overflow) applies.
    pub fn spool_max_bytes(mut self, bytes: u64) -> Self {
        self.spool_max_bytes = Some(bytes);
        self
    }

    /// Sets how long events are kept in the spool. Older events are lost as
    /// [`LossReason::Expired`](crate::LossReason::Expired). The age of a whole
    /// file of up to 8 MiB counts from the last write to it. Defaults to no limit
    /// but that of [`spool_max_bytes`](Self::spool_max_bytes); from 1 s to 10
    /// years.
    ///
    /// An outage, or a server that refuses the API key, is survived for this
    /// long.
    pub fn spool_max_age(mut self, age: Duration) -> Self {
        self.spool_max_age = Some(age);
        self
    }

    /// Sets when the spool is synced to disk. Defaults to
    /// [`SpoolSync::Every`] with one second; from 1 ms to 1 h.
    pub fn spool_sync(mut self, sync: SpoolSync) -> Self {
        self.spool_sync = Some(sync);
        self
    }

    /// Reads the environment variables of the spool.
    pub(super) fn read_spool_variables(
        &mut self,
        variables: &Variables<'_>,
    ) -> Result<(), ConfigError> {
        const MAX_BYTES: &str = "EYEGO_LOG_SPOOL_MAX_BYTES";
        const MAX_AGE: &str = "EYEGO_LOG_SPOOL_MAX_AGE";
        const SYNC: &str = "EYEGO_LOG_SPOOL_SYNC";

        self.spool_dir = variables.path("EYEGO_LOG_SPOOL_DIR");
        if let Some(value) = variables.text(MAX_BYTES)? {
            let expected = "a whole number of bytes such as 1073741824";
            self.spool_max_bytes = Some(parse::number(MAX_BYTES, &value, expected)?);
        }
        if let Some(value) = variables.text(MAX_AGE)? {
            self.spool_max_age =
                Some(parse::duration(MAX_AGE, &value, "a duration such as 7days")?);
        }
        if let Some(value) = variables.text(SYNC)? {
            self.spool_sync = Some(if value.trim() == "batch" {
                SpoolSync::EachBatch
            } else {
                let expected = "batch or a duration such as 500ms or 5s";
                SpoolSync::Every(parse::duration(SYNC, &value, expected)?)
            });
        }
        Ok(())
    }

    /// Checks the options that are set.
    pub(super) fn check_spool(&self) -> Result<(), ConfigError> {
        if let Some(max_bytes) = self.spool_max_bytes {
            let min_bytes = self.max_batch_bytes as u64 * MIN_BATCHES;
            if max_bytes < min_bytes {
                let problem = format!(
                    "must be at least {MIN_BATCHES} times max_batch_bytes, which is {min_bytes} \
                     bytes, not {max_bytes}"
                );
                return Err(ConfigError::new("spool_max_bytes", problem));
            }
        }
        if let Some(SpoolSync::Every(interval)) = self.spool_sync {
            parse::check_duration("spool_sync", interval, MIN_INTERVAL, MAX_INTERVAL)?;
        }
        if let Some(age) = self.spool_max_age {
            parse::check_duration("spool_max_age", age, MIN_AGE, MAX_AGE)?;
        }
        let options = [
            ("spool_max_bytes", self.spool_max_bytes.is_some()),
            ("spool_max_age", self.spool_max_age.is_some()),
            ("spool_sync", self.spool_sync.is_some()),
        ];
        let option = options.into_iter().find(|(_, is_set)| *is_set);
        match (&self.spool_dir, option) {
            (None, Some((option, _))) => Err(ConfigError::new(option, "needs spool_dir")),
            (Some(dir), _) if dir.as_os_str().is_empty() => {
                Err(ConfigError::new("spool_dir", "must not be empty"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the options, or `None` without a spool.
    pub(super) fn spool_options(&self) -> Option<SpoolOptions> {
        let dir = self.spool_dir.clone()?;
        let max_bytes = self.spool_max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
        let (sync, max_age) = (self.spool_sync.unwrap_or_default(), self.spool_max_age);
        Some(SpoolOptions { dir, max_bytes, sync, max_age })
    }
}
