//! The loops that delete. They run in every process with a worker; the one that has
//! the lease deletes.

use std::time::Duration;

use tokio::time::sleep;

use super::erasing::Erasing;
use super::remover::{Remover, Task};
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
        tokio::join!(self.keep_lease(), self.repeat::<Erasing>(), self.repeat::<RetentionPasses>());
    }

    async fn keep_lease(&self) {
        loop {
            // Without a response, another process may have it.
            let has_lease = self.erasures.acquire_lease(self.id).await.unwrap_or(false);
            self.status.set_lease(has_lease);
            sleep(if has_lease { RENEWAL } else { TICK }).await;
        }
    }

    async fn repeat<T: Task>(&self) {
        let mut task = T::start(&self.options.retention);
        let mut last_error = None;
        loop {
            if !self.status.has_lease() {
                // The next holder starts from the beginning, and so does this one later.
                task = T::start(&self.options.retention);
            } else if let Err(error) = task.step(self).await {
                self.report::<T>(&error, &mut last_error);
                sleep(RETRY).await;
            } else if last_error.take().is_some() {
                tracing::info!("{} can be deleted again", T::DELETES);
            }
            sleep(TICK).await;
        }
    }

    fn report<T: Task>(&self, error: &StoreError, last: &mut Option<String>) {
        self.status.count_error();
        let message = error.to_string();
        if last.as_ref() != Some(&message) {
            tracing::warn!(%error, "{} cannot be deleted; retrying", T::DELETES);
            *last = Some(message);
        }
    }
}
