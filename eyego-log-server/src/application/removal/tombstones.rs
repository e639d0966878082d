//! The list of erased users, kept current in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::domain::erasure::{CutOffs, Erasures};
use crate::domain::repository::StoreError;

/// Interval between two reads of the list.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Pause after a read that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum age of a list that events are stored with. Counted from the start of
/// its read.
pub(super) const MAX_AGE: Duration = Duration::from_secs(30);

/// How long storing waits for a current list before it fails.
const WAIT: Duration = Duration::from_secs(5);

/// The list of erased users. All tasks of a process share one.
#[derive(Debug)]
pub struct Tombstones {
    current: watch::Sender<Option<Loaded>>,
}

#[derive(Debug, Clone)]
struct Loaded {
    cut_offs: Arc<CutOffs>,
    at: Instant,
}

impl Loaded {
    fn is_current(&self) -> bool {
        self.at.elapsed() < MAX_AGE
    }
}

impl Default for Tombstones {
    fn default() -> Self {
        Self { current: watch::Sender::new(None) }
    }
}

impl Tombstones {
    /// Reads the list every 5 seconds until the process ends.
    pub async fn keep_current(&self, erasures: &dyn Erasures) {
        let mut failing_since = None;
        let mut is_reported = false;
        loop {
            let began = Instant::now();
            let pause = match self.refresh(erasures).await {
                Ok(()) => {
                    failing_since = None;
                    if std::mem::take(&mut is_reported) {
                        tracing::info!("the list of erased users can be read again");
                    }
                    // A slow read leaves a list that is old already.
                    REFRESH_INTERVAL.saturating_sub(began.elapsed()).max(RETRY_INTERVAL)
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if !is_reported && since.elapsed() >= REFRESH_INTERVAL {
                        tracing::warn!(%error, "cannot read the list of erased users; retrying");
                        is_reported = true;
                    }
                    RETRY_INTERVAL
                }
            };
            sleep(pause).await;
        }
    }

    /// Reads the list once.
    ///
    /// # Errors
    /// Returns an error if the list cannot be read. The last one stays in use until
    /// it is 30 seconds old.
    pub async fn refresh(&self, erasures: &dyn Erasures) -> Result<(), StoreError> {
        let at = Instant::now();
        let cut_offs = Arc::new(erasures.cut_offs().await?);
        self.current.send_replace(Some(Loaded { cut_offs, at }));
        Ok(())
    }

    /// Returns the list. Waits a little if it is too old.
    ///
    /// # Errors
    /// Returns [`StoreError::Transient`] if the list is still too old.
    pub(super) async fn current(&self) -> Result<Arc<CutOffs>, StoreError> {
        let is_current = |loaded: &Option<Loaded>| loaded.as_ref().is_some_and(Loaded::is_current);
        if let Some(loaded) = &*self.current.borrow()
            && loaded.is_current()
        {
            return Ok(Arc::clone(&loaded.cut_offs));
        }
        let mut receiver = self.current.subscribe();
        match tokio::time::timeout(WAIT, receiver.wait_for(is_current)).await {
            Ok(Ok(loaded)) => {
                Ok(loaded.as_ref().map(|l| Arc::clone(&l.cut_offs)).unwrap_or_default())
            }
            // The sender is never dropped before `self`.
            Ok(Err(_)) | Err(_) => Err(StoreError::Transient(format!(
                "the list of erased users is older than {} s or was never read, so no event may \
                 be stored",
                MAX_AGE.as_secs()
            ))),
        }
    }
}
