//! Moves records from the spool into the queue: in order, one batch at a time,
//! so that new records are not delayed. A record is deleted from the spool once
//! the queue has acknowledged it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eyego_log_core::record;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Shared, can_be_spooled, select};
use crate::domain::position::Offset;
use crate::domain::queue::{AppendResult, LogQueue};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{Signal, Subscription};
use crate::infrastructure::queue::sqlite::{SqliteQueue, SqliteSubscription};

/// Size at which a batch is moved.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// Interval at which the thread checks whether it should stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The thread that moves records.
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
        let mover = Mover { queue, spool, shared, runtime: Handle::current() };
        std::thread::Builder::new().name("spool-drain".to_owned()).spawn(move || {
            mover.run();
            has_ended.send_replace(true);
        })?;
        Ok(Self { ended })
    }

    /// Waits until the thread has ended or `deadline` passes. Records that were
    /// not deleted by then are moved again by the next process.
    pub(super) async fn ended(&self, deadline: std::time::Instant) {
        let mut ended = self.ended.clone();
        let _ = tokio::time::timeout_at(deadline.into(), ended.wait_for(|ended| *ended)).await;
    }
}

struct Mover {
    queue: Arc<dyn LogQueue>,
    spool: Arc<SqliteQueue>,
    shared: Arc<Shared>,
    runtime: Handle,
}

/// Records read from the spool, with their offsets.
#[derive(Default)]
struct SpooledBatch {
    records: RecordBatch,
    offsets: Vec<Offset>,
}

impl Mover {
    fn run(&self) {
        let Some(mut subscription) = self.subscribe() else { return };
        while !self.is_closing() {
            if let Some(pause) = self.shared.remaining_pause() {
                std::thread::sleep(pause.min(CHECK_INTERVAL));
                continue;
            }
            let batch = self.read_batch(&mut subscription);
            if batch.offsets.is_empty() {
                continue;
            }
            if self.move_all(batch, &subscription).is_none() {
                return;
            }
            // Uncommitted records are moved again, now or after a restart.
            if let Err(error) = subscription.commit_delivered() {
                tracing::warn!(%error, "cannot delete moved records from the spool");
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.is_closing.load(Ordering::Acquire)
    }

    /// Subscribes to the spool once its file is open.
    fn subscribe(&self) -> Option<SqliteSubscription> {
        while !self.is_closing() {
            if self.spool.is_open()
                && let Ok(subscription) = self.spool.read()
            {
                return Some(subscription);
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
        None
    }

    fn read_batch(&self, subscription: &mut SqliteSubscription) -> SpooledBatch {
        let mut batch = SpooledBatch::default();
        let polled = subscription.poll(CHECK_INTERVAL, &mut |record| {
            let value = record.value.unwrap_or_default();
            // The spool stores no keys, so the key is taken from the value.
            let user = record::decode(value).map(|record| record.user_id);
            let key = user.as_ref().map_or("", |user| user.as_str());
            batch.records.push_encoded(key.as_bytes(), value);
            batch.offsets.push(record.offset);
            if batch.offsets.len() < BATCH_RECORDS && batch.records.size() < BATCH_BYTES {
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
                std::thread::sleep(CHECK_INTERVAL);
            }
        }
        batch
    }

    /// Moves the batch, retrying until each record is acknowledged or refused.
    /// Returns `None` if the server shuts down first.
    fn move_all(&self, mut batch: SpooledBatch, subscription: &SqliteSubscription) -> Option<()> {
        loop {
            let results = self.runtime.block_on(self.queue.append(batch.records.clone()));
            self.count(&batch, &results, subscription);
            let Some(failure) = results.iter().find(|result| can_be_spooled(result)) else {
                self.shared.queue_succeeded();
                return Some(());
            };
            if let Err(error) = failure {
                self.shared.queue_failed(&error.to_string());
            }
            let records = select(&batch.records, |index| can_be_spooled(&results[index]));
            let failed = batch.offsets.into_iter().zip(&results);
            let failed = failed.filter(|(_, result)| can_be_spooled(result));
            batch = SpooledBatch { records, offsets: failed.map(|(offset, _)| offset).collect() };
            while let Some(pause) = self.shared.remaining_pause() {
                if self.is_closing() {
                    return None;
                }
                std::thread::sleep(pause.min(CHECK_INTERVAL));
            }
        }
    }

    fn count(
        &self,
        batch: &SpooledBatch,
        results: &[AppendResult],
        subscription: &SqliteSubscription,
    ) {
        for (offset, result) in batch.offsets.iter().zip(results) {
            match result {
                Ok(_) => {
                    self.shared.moved.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if !can_be_spooled(result) => {
                    // The record was acknowledged, so an operator has to handle it.
                    tracing::error!(
                        offset,
                        %error,
                        "the queue refuses a spooled record: the table `quarantined` keeps a copy"
                    );
                    subscription.quarantine(*offset);
                    self.shared.quarantined.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
    }
}
