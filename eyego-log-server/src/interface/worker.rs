//! The worker's thread: where records come in from the queue.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::application::persist::{Persist, Stop};
use crate::domain::queue::LogQueue;

/// Before a worker that panicked starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Of the time to end, this much is kept to leave the queue.
const LEAVING: Duration = Duration::from_secs(2);

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    stop: Arc<Stop>,
    end: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts to take records from the queue.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(persist: Persist, queue: Arc<dyn LogQueue>) -> io::Result<Self> {
        let stop = persist.stop();
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
            work(&persist, &*queue);
            // Nobody waits any more after the deadline.
            let _ = ended.send(());
        })?;
        Ok(Self { stop, end })
    }

    /// Lets the worker settle what it has, commit and leave, until the
    /// deadline.
    pub async fn end(self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let settled = Instant::now() + left.saturating_sub(LEAVING);
        self.stop.request(settled.into_std());
        if tokio::time::timeout_at(deadline, self.end).await.is_err() {
            tracing::warn!("the worker did not end in time; what it had will be delivered again");
        }
    }
}

fn work(persist: &Persist, queue: &dyn LogQueue) {
    loop {
        let panicked = match queue.subscribe() {
            Ok(subscription) => {
                catch_unwind(AssertUnwindSafe(|| persist.run(subscription))).is_err()
            }
            Err(error) => {
                tracing::error!(%error, "cannot subscribe to the queue");
                true
            }
        };
        if !panicked || persist.is_stopping() {
            return;
        }
        // A worker that is gone must not look like one that has nothing to do.
        // Nothing is lost: what was not committed is delivered again.
        persist.report("the worker broke down; starting it again");
        std::thread::sleep(RESTART_PAUSE);
    }
}
