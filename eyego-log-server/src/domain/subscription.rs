//! The consumer side of the queue port.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use eyego_log_core::Timestamp;

use super::position::{Offset, Partition};

/// One consumer of a queue. Used from a single thread.
///
/// The caller MUST poll at least every few seconds, even while the
/// subscription is [paused](Self::pause). Otherwise the queue may consider the
/// consumer dead and reassign its partitions.
pub trait Subscription: Send {
    /// Waits up to `timeout` for records or a signal, and returns the signal.
    ///
    /// Records are passed to `sink`, in order within each partition. The call
    /// returns when the sink breaks (that record counts as delivered), when no
    /// further record is available, or after a bounded number of records. A
    /// record is delivered again after a restart or a rebalance unless a larger
    /// offset was [committed](Self::commit).
    ///
    /// # Errors
    /// Returns an error if the queue reports one, for example because its
    /// brokers are unreachable. The caller keeps polling: the subscription
    /// recovers by itself.
    fn poll(&mut self, timeout: Duration, sink: &mut RecordSink<'_>) -> Result<Signal, QueueError>;

    /// Commits, for each partition, the offset at which consumption resumes:
    /// one past the last settled record. Returns once the commit is durable.
    ///
    /// An offset below the committed one MUST NOT move it back.
    ///
    /// # Errors
    /// Returns an error if some or all offsets were not committed. Committing
    /// the same or larger offsets later is sufficient.
    fn commit(&mut self, next_offsets: &[(Partition, Offset)]) -> Result<(), QueueError>;

    /// Acknowledges the last [`Signal::Revoked`] or [`Signal::Lost`]: this
    /// consumer has finished with those partitions. Until then, the queue
    /// assigns them to no other consumer.
    fn release(&mut self);

    /// Stops delivering records. [`poll`](Self::poll) still reports signals.
    ///
    /// # Errors
    /// Returns an error if the queue refuses; records are still delivered.
    fn pause(&mut self) -> Result<(), QueueError>;

    /// Resumes delivery after the last delivered record.
    ///
    /// # Errors
    /// Returns an error if the queue refuses; delivery stays paused.
    fn resume(&mut self) -> Result<(), QueueError>;

    /// Returns the number of records past the committed offset for each
    /// assigned partition, as last observed. Never blocks.
    fn lag(&self) -> Vec<(Partition, u64)>;

    /// Returns how long the queue keeps a record that was not consumed, or
    /// `None` if it keeps records until they are consumed or the limit is
    /// unknown.
    fn retention(&self) -> Option<Duration> {
        None
    }

    /// Leaves the consumers of the queue. Uncommitted records are delivered to
    /// another consumer, or to this process when it subscribes again.
    fn close(self: Box<Self>);
}

/// Receives delivered records; breaks when it cannot accept more for now.
pub type RecordSink<'a> = dyn FnMut(Delivered<'_>) -> ControlFlow<()> + 'a;

/// What a poll reports besides records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Nothing besides any delivered records.
    None,
    /// These partitions are now assigned to this consumer as well.
    Assigned(Vec<Partition>),
    /// These partitions move to another consumer once this one
    /// [releases](Subscription::release) them. It should settle and commit
    /// their records within this time.
    Revoked(Vec<Partition>, Duration),
    /// These partitions already belong to another consumer. The caller MUST NOT
    /// commit their offsets and MUST [release](Subscription::release) them.
    Lost(Vec<Partition>),
    /// About this many records were lost before they were consumed: the queue's
    /// retention is shorter than the lag, or its disk is damaged.
    Expired(Partition, u64),
}

/// A record as the queue delivers it.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// Partition of the record.
    pub partition: Partition,
    /// Offset of the record within its partition.
    pub offset: Offset,
    /// When the queue accepted the record.
    pub queued_at: Timestamp,
    /// Value of the record, or `None` for a record without a value.
    pub value: Option<&'a [u8]>,
}

/// An error reported to a consumer of the queue.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    /// Message for logs and readiness.
    pub message: String,
    /// Underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl QueueError {
    /// Creates an error without an underlying cause.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// Creates an error from a description of the failed operation and its
    /// cause.
    pub fn because(
        message: impl fmt::Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { message: format!("{message}: {source}"), source: Some(Box::new(source)) }
    }
}
