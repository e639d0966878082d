//! The thread that runs the worker.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::application::persist::{Persist, Stop};
use crate::domain::queue::LogQueue;
use crate::domain::repeated::Repeated;

/// Pause before a worker that panicked is restarted.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Part of the shutdown time reserved for leaving the queue.
const LEAVE_QUEUE: Duration = Duration::from_secs(2);

/// Interval between log lines about a worker that fails again and again.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Arc<Stop>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts moving records from the queue into the store.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub(super) fn start(persist: Persist, queue: Arc<dyn LogQueue>) -> io::Result<Self> {
        let stop = persist.stop();
        let (on_end, ended) = oneshot::channel();
        std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
            work(&persist, &*queue);
            // The receiver is dropped once the shutdown deadline has passed.
            let _ = on_end.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Lets the worker settle the records it holds, commit and leave the queue.
    /// Returns when it has done so or `deadline` passes.
    pub(super) async fn shut_down(self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let settled = Instant::now() + left.saturating_sub(LEAVE_QUEUE);
        self.stop.request(settled);
        if tokio::time::timeout_at(deadline.into(), self.ended).await.is_err() {
            tracing::warn!(
                "the worker did not stop before the deadline; its unsettled records will be delivered again"
            );
        }
    }
}

fn work(persist: &Persist, queue: &dyn LogQueue) {
    let mut repeated = Repeated::every(REPORT_INTERVAL);
    loop {
        let failure = match queue.subscribe() {
            Ok(subscription) => {
                match catch_unwind(AssertUnwindSafe(|| persist.run(subscription))) {
                    Ok(()) => return,
                    Err(_) => "the worker panicked and is restarted".to_owned(),
                }
            }
            Err(error) => format!("cannot subscribe to the queue: {error}"),
        };
        if persist.is_stopping() {
            return;
        }
        // No record is lost: uncommitted records are delivered again.
        persist.report(&failure);
        if let Some(count) = repeated.note("", 1, Instant::now()) {
            tracing::error!(count, "{failure}");
        }
        std::thread::sleep(RESTART_PAUSE);
    }
}
