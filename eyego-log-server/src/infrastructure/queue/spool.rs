//! The server spool: a [`LogQueue`] made of two others. Records that the queue
//! cannot accept are stored durably in a local file, and moved into the queue
//! once it accepts records again (ADR 0012).
//!
//! The spool is bounded: beyond its size limit, records are refused as by a full
//! queue. A record may enter the queue twice, once late from the first attempt
//! and once from the spool; both have the same id. Spooled records keep their
//! order among themselves, but not relative to other records.

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
use crate::domain::queue::{
    AppendError, AppendResult, Durable, LogQueue, SettingProblem, SpoolCounts,
};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{QueueError, Subscription};

/// Time after which records that the queue has not acknowledged are spooled.
/// It is shorter than the queue's own timeout: at full load, the memory for
/// waiting records would run out before that.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A queue with a spool in front of it.
pub struct SpooledQueue {
    queue: Arc<dyn LogQueue>,
    spool: Arc<SqliteQueue>,
    shared: Arc<Shared>,
    drain: Drain,
}

/// State shared by callers and the drain.
#[derive(Debug, Default)]
struct Shared {
    breaker: Mutex<Breaker>,
    is_closing: AtomicBool,
    moved: AtomicU64,
    quarantined: AtomicU64,
}

impl Shared {
    fn remaining_pause(&self) -> Option<Duration> {
        self.breaker.lock().remaining_pause(Instant::now())
    }

    fn queue_succeeded(&self) {
        if self.breaker.lock().succeed() {
            tracing::info!("the queue accepts records again");
        }
    }

    fn queue_failed(&self, reason: &str) {
        if self.breaker.lock().fail(Instant::now()) {
            tracing::warn!(reason, "the queue does not accept records: spooling them");
        }
    }
}

impl SpooledQueue {
    /// Puts a spool in front of a queue, and starts to move records that an
    /// earlier process left in the spool. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub fn start(queue: Arc<dyn LogQueue>, spool: Arc<SqliteQueue>) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let drain = Drain::start(Arc::clone(&queue), Arc::clone(&spool), Arc::clone(&shared))?;
        Ok(Arc::new(Self { queue, spool, shared, drain }))
    }

    async fn append_to_queue(&self, batch: &RecordBatch) -> Vec<AppendResult> {
        match tokio::time::timeout(QUEUE_TIMEOUT, self.queue.append(batch.clone())).await {
            Ok(results) => results,
            Err(_) => {
                let reason = format!("no acknowledgement within {QUEUE_TIMEOUT:?}");
                vec![Err(AppendError::Unavailable(reason)); batch.len()]
            }
        }
    }

    async fn append_to_spool(&self, batch: RecordBatch) -> Vec<AppendResult> {
        let results = self.spool.append(batch).await;
        results.into_iter().map(|result| result.map(|_| Durable::Spool)).collect()
    }
}

/// Returns `true` for failures that may be temporary.
fn can_be_spooled(result: &AppendResult) -> bool {
    matches!(result, Err(AppendError::Unavailable(_) | AppendError::Full(_)))
}

/// Returns the records whose index matches, in their order.
fn select(batch: &RecordBatch, matches: impl Fn(usize) -> bool) -> RecordBatch {
    let mut selected = RecordBatch::default();
    for (index, record) in batch.iter().enumerate() {
        if matches(index) {
            selected.push_encoded(record.key, record.value);
        }
    }
    selected
}

#[async_trait]
impl LogQueue for SpooledQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        if self.shared.breaker.lock().is_open() {
            let results = self.append_to_spool(batch.clone()).await;
            // A full spool refuses. If the spool fails, the queue is tried: with
            // an empty spool, nothing else would detect that it works again.
            let is_broken =
                |result: &AppendResult| matches!(result, Err(AppendError::Unavailable(_)));
            if !results.iter().any(is_broken) {
                return results;
            }
        }
        let mut results = self.append_to_queue(&batch).await;
        let failed = results.iter().filter(|result| can_be_spooled(result)).count();
        if failed == 0 {
            self.shared.queue_succeeded();
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
        let mut spooled = self.append_to_spool(rest).await.into_iter();
        for result in results.iter_mut().filter(|result| can_be_spooled(result)) {
            if let Some(spooled) = spooled.next() {
                *result = spooled;
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

    fn setting_problems(&self) -> Vec<SettingProblem> {
        self.queue.setting_problems()
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
