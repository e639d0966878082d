//! The loop that deletes. It runs in every process with a worker; the one that has
//! the lease deletes.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::erasing::Erasing;
use super::remover::Remover;
use super::retention::RetentionPasses;
use crate::domain::repository::StoreError;

/// Interval between two checks for something to do.
const TICK: Duration = Duration::from_secs(1);

/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// Interval between renewals of the lease.
const RENEWAL: Duration = Duration::from_secs(10);

impl Remover {
    /// Deletes until the process ends. Dropping the future between two calls of the store is safe:
    /// the next run, in any process, continues.
    pub async fn run(&self) {
        tokio::join!(self.keep_lease(), self.work());
    }

    async fn keep_lease(&self) {
        loop {
            // Without a response, another process may have it.
            let has_lease = self.erasures.acquire_lease(self.id).await.unwrap_or(false);
            self.status.set_lease(has_lease);
            sleep(if has_lease { RENEWAL } else { TICK }).await;
        }
    }

    async fn work(&self) {
        let mut erasing = Erasing::default();
        let mut passes = RetentionPasses::new(&self.options.retention);
        let mut last_error = None;
        loop {
            if self.status.has_lease() {
                // An erasure can fail for hours, for lack of disk space.
                let erased = erasing.step(self).await;
                let expired = passes.step(self, SystemTime::now().into()).await;
                if let Err(error) = erased.and(expired) {
                    self.report(&error, &mut last_error);
                    sleep(RETRY).await;
                } else if last_error.take().is_some() {
                    tracing::info!("expired and erased events can be deleted again");
                }
            } else {
                // The next holder starts from the beginning, and so does this one later.
                erasing = Erasing::default();
                passes = RetentionPasses::new(&self.options.retention);
            }
            sleep(TICK).await;
        }
    }

    fn report(&self, error: &StoreError, last: &mut Option<String>) {
        self.status.count_error();
        let message = error.to_string();
        if last.as_ref() != Some(&message) {
            tracing::warn!(%error, "cannot delete expired or erased events; retrying");
            *last = Some(message);
        }
    }
}
