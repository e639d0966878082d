//! The spool: a [`LogQueue`] of two others. What the queue cannot take goes
//! into a file of this process, durably, and from there into the queue as soon
//! as that takes records again.
//!
//! Bounded: past its size the answer is that of a full queue. A record may get
//! into the queue twice, once late by itself and once from the spool; both
//! have its id. Order is kept within the spool, not across it.

mod breaker;
mod drain;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use self::breaker::Breaker;
use self::drain::Drain;
use super::sqlite::SqliteQueue;
use crate::domain::health::{PartHealth, PartState};
use crate::domain::queue::{AppendError, AppendResult, Durable, LogQueue, SpoolCounts};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{QueueError, Subscription};

/// What the queue has not acknowledged by then is spooled, too. Less than the
/// queue's own patience: at full load the memory for what waits would be used
/// up before that.
const PATIENCE: Duration = Duration::from_secs(1);

/// A queue with a spool before it.
pub struct SpooledQueue {
    queue: Arc<dyn LogQueue>,
    spool: Arc<SqliteQueue>,
    shared: Arc<Shared>,
    drain: Drain,
}

/// What callers and the drain have in common.
#[derive(Debug, Default)]
struct Shared {
    breaker: Mutex<Breaker>,
    is_closing: AtomicBool,
    moved: AtomicU64,
    quarantined: AtomicU64,
}

impl Shared {
    /// How long the queue is to be left alone; never under the lock, which
    /// every append takes.
    fn pause(&self) -> Option<Duration> {
        self.breaker.lock().pause(Instant::now())
    }

    fn queue_took(&self) {
        if self.breaker.lock().succeed() {
            tracing::info!("the queue takes records again");
        }
    }

    fn queue_failed(&self, reason: &str) {
        if self.breaker.lock().fail(Instant::now()) {
            tracing::warn!(reason, "the queue does not take records: they go to the spool");
        }
    }
}

impl SpooledQueue {
    /// Puts a spool before a queue, and begins to move what an earlier process
    /// left in it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(queue: Arc<dyn LogQueue>, spool: Arc<SqliteQueue>) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let drain = Drain::start(Arc::clone(&queue), Arc::clone(&spool), Arc::clone(&shared))?;
        Ok(Arc::new(Self { queue, spool, shared, drain }))
    }

    /// Appends to the queue, for as long as it is worth waiting for it.
    async fn try_queue(&self, batch: &RecordBatch) -> Vec<AppendResult> {
        match tokio::time::timeout(PATIENCE, self.queue.append(batch.clone())).await {
            Ok(results) => results,
            Err(_) => {
                let reason = format!("no answer within {PATIENCE:?}");
                vec![Err(AppendError::Unavailable(reason)); batch.len()]
            }
        }
    }

    async fn put_aside(&self, batch: RecordBatch) -> Vec<AppendResult> {
        let results = self.spool.append(batch).await;
        results.into_iter().map(|result| result.map(|_| Durable::Spool)).collect()
    }
}

/// Whether the spool helps against this.
fn can_be_spooled(result: &AppendResult) -> bool {
    matches!(result, Err(AppendError::Unavailable(_) | AppendError::Full(_)))
}

/// The records of these places, in their order.
fn select(batch: &RecordBatch, is_wanted: impl Fn(usize) -> bool) -> RecordBatch {
    let mut selected = RecordBatch::default();
    for (index, record) in batch.iter().enumerate() {
        if is_wanted(index) {
            selected.push_encoded(record.key, record.value);
        }
    }
    selected
}

#[async_trait]
impl LogQueue for SpooledQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        if self.shared.breaker.lock().is_open() {
            let results = self.put_aside(batch.clone()).await;
            // A full spool is an answer; a broken one is none, and with nothing
            // in it nobody would find out that the queue is back.
            let is_broken =
                |result: &AppendResult| matches!(result, Err(AppendError::Unavailable(_)));
            if !results.iter().any(is_broken) {
                return results;
            }
        }
        let mut results = self.try_queue(&batch).await;
        let failed = results.iter().filter(|result| can_be_spooled(result)).count();
        if failed == 0 {
            self.shared.queue_took();
            return results;
        }
        if let Some(Err(error)) = results.iter().find(|result| can_be_spooled(result)) {
            self.shared.queue_failed(&error.to_string());
        }
        let rest = if failed == batch.len() {
            batch
        } else {
            select(&batch, |index| can_be_spooled(&results[index]))
        };
        let mut spooled = self.put_aside(rest).await.into_iter();
        for result in results.iter_mut().filter(|result| can_be_spooled(result)) {
            if let Some(fate) = spooled.next() {
                *result = fate;
            }
        }
        results
    }

    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError> {
        self.queue.subscribe()
    }

    fn health(&self) -> PartHealth {
        let PartHealth { name, state } = self.queue.health();
        let state = match (state, self.spool.health().state) {
            (PartState::Down(reason), PartState::Up | PartState::Warning(_)) => {
                PartState::Warning(format!("{reason}; records go to the spool"))
            }
            (state, _) => state,
        };
        PartHealth { name, state }
    }

    fn parts(&self) -> Vec<PartHealth> {
        vec![self.queue.health(), self.spool.health()]
    }

    fn spool(&self) -> Option<SpoolCounts> {
        Some(SpoolCounts {
            is_in_use: self.shared.breaker.lock().is_open(),
            records: self.spool.backlog(),
            moved: self.shared.moved.load(Ordering::Relaxed),
            quarantined: self.shared.quarantined.load(Ordering::Relaxed),
        })
    }

    async fn close(&self, deadline: Instant) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.queue.close(deadline).await;
        self.drain.ended(deadline).await;
        self.spool.close(deadline).await;
    }
}

impl fmt::Debug for SpooledQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpooledQueue").field("spool", &self.spool).finish_non_exhaustive()
    }
}
