//! The queue port: where an event is durable before it is stored.

use std::time::Instant;

use async_trait::async_trait;

use super::health::PartHealth;
use super::record_batch::RecordBatch;
use super::subscription::{QueueError, Subscription};

/// A durable, partitioned queue of records, consumed at least once.
///
/// All records of one user go to the same partition. They are delivered in the
/// order in which they were acknowledged, unless an append was retried.
#[async_trait]
pub trait LogQueue: Send + Sync {
    /// Appends records and returns one result per record, in their order.
    ///
    /// `Ok` means durable: the record survives the loss of this process and, on
    /// a replicated queue, the loss of a broker. It MUST be delivered to a
    /// subscriber at least once.
    ///
    /// `Err` means not acknowledged: the record may still appear, once, under
    /// its id. Records that were not handed to the engine before the adapter's
    /// deadline are withdrawn and never appear.
    ///
    /// The call MUST return within the adapter's deadline, even if the engine
    /// hangs. Dropping the future withdraws nothing: the batch and its
    /// [guard](RecordBatch::hold_until_settled) are dropped once the result of
    /// the last record is known.
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult>;

    /// Returns the reason if an append would certainly be refused now, so that a
    /// large batch is refused before any work is done for it. Never blocks.
    fn refusal(&self) -> Option<AppendError> {
        None
    }

    /// Joins the consumers of this queue.
    ///
    /// Returns at once, even if the queue is unreachable. Until it is
    /// reachable, the subscription delivers nothing and
    /// [`health`](Self::health) reports the reason.
    ///
    /// # Errors
    /// Returns an error if the configuration does not allow a subscription.
    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError>;

    /// Returns the last observed health. Never blocks.
    fn health(&self) -> PartHealth;

    /// Returns the health of each part, for a queue made of several parts.
    fn parts(&self) -> Vec<PartHealth> {
        vec![self.health()]
    }

    /// Returns the settings of the queue that endanger acknowledged records, as
    /// last observed. Never blocks.
    fn setting_problems(&self) -> Vec<SettingProblem> {
        Vec::new()
    }

    /// Returns the state of the spool, or `None` if this queue has no spool.
    fn spool(&self) -> Option<SpoolCounts> {
        None
    }

    /// Shuts down: waits until all appended records are acknowledged or
    /// refused, or `deadline` passes, then closes files and connections.
    ///
    /// Later appends return [`AppendError::Unavailable`].
    async fn close(&self, deadline: Instant);
}

/// Result of appending one record.
pub type AppendResult = Result<Durable, AppendError>;

/// Where an acknowledged record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// In the queue.
    Queue,
    /// In this process's spool, from which it is moved into the queue.
    Spool,
}

/// A setting of the queue that endangers acknowledged records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// Name of the setting, as the engine calls it.
    pub setting: &'static str,
    /// Message for an operator, with the value and what to do.
    pub message: String,
}

/// Snapshot of the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Whether new records currently go to the spool.
    pub is_in_use: bool,
    /// Records waiting to be moved into the queue.
    pub records: u64,
    /// Records that this process moved into the queue.
    pub moved: u64,
    /// Records that cannot be moved, because they are damaged or the queue
    /// refuses them. The spool's file keeps a copy of each.
    pub quarantined: u64,
}

/// The reason a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full.
    #[error("the queue is full: {0}")]
    Full(String),
    /// Storing lags so far behind that accepted records could not be read soon.
    #[error("storing lags behind: {0}")]
    Lagging(String),
    /// The memory in front of the queue is used up.
    #[error("the memory for events in flight is used up")]
    OutOfMemory,
    /// The queue is unreachable, refused the record, or did not respond in
    /// time.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// The record exceeds the queue's size limit.
    #[error("the record is too large for the queue: {0}")]
    TooLarge(String),
}
