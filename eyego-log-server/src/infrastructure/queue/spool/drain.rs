//! Moves what is in the spool into the queue: in order, one batch at a time,
//! so that new records are not held up, each deleted only after its
//! acknowledgement.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eyego_log_core::record;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Shared, can_be_spooled, select};
use crate::domain::queue::{AppendResult, LogQueue, Offset};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{Signal, Subscription};
use crate::infrastructure::queue::sqlite::{SqliteQueue, SqliteSubscription};

/// What is moved at once.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// How often it is looked whether the process stops, or something changed.
const LOOK: Duration = Duration::from_millis(100);

/// The thread that moves.
pub(super) struct Drain {
    ended: watch::Receiver<bool>,
}

impl Drain {
    pub(super) fn start(
        queue: Arc<dyn LogQueue>,
        spool: Arc<SqliteQueue>,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let (has_ended, ended) = watch::channel(false);
        let work = Work { queue, spool, shared, runtime: Handle::current() };
        std::thread::Builder::new().name("spool-drain".to_owned()).spawn(move || {
            work.run();
            has_ended.send_replace(true);
        })?;
        Ok(Self { ended })
    }

    /// Waits until it has stopped.
    pub(super) async fn ended(&self, deadline: std::time::Instant) {
        let mut ended = self.ended.clone();
        // Past the deadline the process ends: what was not deleted is moved by
        // the next one.
        let _ = tokio::time::timeout_at(deadline.into(), ended.wait_for(|ended| *ended)).await;
    }
}

struct Work {
    queue: Arc<dyn LogQueue>,
    spool: Arc<SqliteQueue>,
    shared: Arc<Shared>,
    runtime: Handle,
}

/// Records on their way from the spool into the queue.
#[derive(Default)]
struct Taken {
    batch: RecordBatch,
    offsets: Vec<Offset>,
}

impl Work {
    fn run(&self) {
        let Some(mut subscription) = self.subscribe() else { return };
        while !self.is_closing() {
            if let Some(pause) = self.shared.pause() {
                std::thread::sleep(pause.min(LOOK));
                continue;
            }
            let taken = self.take(&mut subscription);
            if taken.offsets.is_empty() {
                continue;
            }
            if self.move_all(taken, &subscription).is_none() {
                return;
            }
            // What is not committed is moved again, by us or after a restart.
            if let Err(error) = subscription.commit_delivered() {
                tracing::warn!(%error, "cannot delete from the spool what was moved");
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.is_closing.load(Ordering::Acquire)
    }

    /// The spool's records, once its file is open.
    fn subscribe(&self) -> Option<SqliteSubscription> {
        while !self.is_closing() {
            if self.spool.is_open()
                && let Ok(subscription) = self.spool.read()
            {
                return Some(subscription);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    fn take(&self, subscription: &mut SqliteSubscription) -> Taken {
        let mut taken = Taken::default();
        let polled = subscription.poll(LOOK, &mut |record| {
            let value = record.value.unwrap_or_default();
            // The spool keeps no keys: a record says whose it is.
            let user = record::decode(value).map(|record| record.user_id);
            let key = user.as_ref().map_or("", |user| user.as_str());
            taken.batch.push_encoded(key.as_bytes(), value);
            taken.offsets.push(record.offset);
            if taken.offsets.len() < BATCH_RECORDS && taken.batch.size() < BATCH_BYTES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        match polled {
            Ok(Signal::Expired(_, damaged)) => {
                self.shared.quarantined.fetch_add(damaged, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the spool");
                std::thread::sleep(LOOK);
            }
        }
        taken
    }

    /// Moves them, however long it takes; `None` when the process stops.
    fn move_all(&self, mut taken: Taken, subscription: &SqliteSubscription) -> Option<()> {
        loop {
            let results = self.runtime.block_on(self.queue.append(taken.batch.clone()));
            self.count(&taken, &results, subscription);
            let Some(failure) = results.iter().find(|result| can_be_spooled(result)) else {
                self.shared.queue_took();
                return Some(());
            };
            if let Err(error) = failure {
                self.shared.queue_failed(&error.to_string());
            }
            let batch = select(&taken.batch, |index| can_be_spooled(&results[index]));
            let left = taken.offsets.into_iter().zip(&results);
            let offsets = left.filter(|(_, result)| can_be_spooled(result)).map(|(at, _)| at);
            taken = Taken { batch, offsets: offsets.collect() };
            while let Some(pause) = self.shared.pause() {
                if self.is_closing() {
                    return None;
                }
                std::thread::sleep(pause.min(LOOK));
            }
        }
    }

    fn count(&self, taken: &Taken, results: &[AppendResult], subscription: &SqliteSubscription) {
        for (offset, result) in taken.offsets.iter().zip(results) {
            match result {
                Ok(_) => {
                    self.shared.moved.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if !can_be_spooled(result) => {
                    // It was acknowledged: a person has to look at it.
                    tracing::error!(offset, %error, "the queue refuses a record of the spool: a copy is kept in the table quarantined");
                    subscription.quarantined(*offset);
                    self.shared.quarantined.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
    }
}
