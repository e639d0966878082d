//! The port of the queue: where an event is safe before it is stored.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, Timestamp, record};
use tokio::sync::OwnedSemaphorePermit;

use super::health::PartHealth;

/// A partition of the queue. The embedded queue has one, 0.
pub type Partition = i32;

/// The place of a record in its partition. Ascending, with gaps.
pub type Offset = i64;

/// A durable queue of records, in partitions, consumed at least once.
///
/// Records of one user go to one partition and come out in the order in which
/// they were acknowledged, unless an append had to be tried again.
#[async_trait]
pub trait LogQueue: Send + Sync {
    /// Appends records; answers one result per record, in their order.
    ///
    /// `Ok` means durable: the record survives the loss of this process and
    /// (on a replicated queue) of a broker, and MUST be delivered to a
    /// subscriber at least once. An error means "not acknowledged": the record
    /// may still appear, once, under its id. What was not yet handed over when
    /// the append's deadline came is withdrawn and will not appear.
    ///
    /// The call answers within the adapter's deadline, also when the queue
    /// hangs. Dropping the future does not withdraw anything; the batch, and
    /// with it its [permit](RecordBatch::hold_until_settled), is dropped when
    /// the fate of its last record is known.
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult>;

    /// Joins the consumers of this queue.
    ///
    /// Never waits for the queue to be there: until it is, the subscription
    /// delivers nothing and [`health`](Self::health) says why.
    ///
    /// # Errors
    /// The configuration does not allow it.
    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError>;

    /// Whether the queue takes records, as last seen; never waits.
    fn health(&self) -> PartHealth;

    /// How each of its parts is, where it is made of several.
    fn parts(&self) -> Vec<PartHealth> {
        vec![self.health()]
    }

    /// What its spool holds, if it has one.
    fn spool(&self) -> Option<SpoolCounts> {
        None
    }

    /// Ends: waits until what was appended is settled, at most until the
    /// deadline, and lets go of files and connections. Appends that come later
    /// are answered [`AppendError::Unavailable`].
    async fn close(&self, deadline: tokio::time::Instant);
}

/// What became of a record.
pub type AppendResult = Result<Durable, AppendError>;

/// Where a record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// In the queue.
    Queue,
    /// In this process's spool, on its way into the queue.
    Spool,
}

/// A spool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Whether records go there now.
    pub is_in_use: bool,
    /// Records that wait to be moved into the queue.
    pub records: u64,
    /// Records that this process moved into the queue.
    pub moved: u64,
    /// Records that can not be moved: they were damaged, or the queue refuses
    /// them. A copy is kept in the spool's file.
    pub set_aside: u64,
}

/// One consumer of a queue, used from one thread.
///
/// The caller polls at least every few seconds, also when it has
/// [paused](Self::pause); else the queue may hold it for dead.
pub trait Subscription: Send {
    /// Waits up to `timeout` for something to happen, and tells what.
    ///
    /// Records go to `sink`, in the order of each partition; the call ends
    /// when the sink breaks (that record counts as delivered), when no more
    /// are at hand, or after some number of them. A record is delivered again
    /// after a restart or a rebalance unless an offset past it was
    /// [committed](Self::commit).
    ///
    /// # Errors
    /// What the queue reports, such as unreachable brokers. The caller goes on
    /// polling; the subscription recovers by itself.
    fn poll(&mut self, timeout: Duration, sink: &mut RecordSink<'_>) -> Result<Signal, QueueError>;

    /// Commits for each partition the offset at which consumption goes on: one
    /// past the last record that is done. Returns when the commit is durable.
    ///
    /// # Errors
    /// Nothing, or only a part of it, was committed; a later commit of the
    /// same or a larger offset makes good for it. An offset below one that is
    /// committed already MUST NOT move it back.
    fn commit(&mut self, next_offsets: &[(Partition, Offset)]) -> Result<(), QueueError>;

    /// Answers the last [`Signal::Revoked`] or [`Signal::Lost`]: this consumer
    /// has done all it will for those partitions. Until then nobody else gets
    /// them.
    fn release(&mut self);

    /// Stops the delivery of records; [`poll`](Self::poll) goes on reporting
    /// everything else.
    ///
    /// # Errors
    /// The queue refused; delivery goes on.
    fn pause(&mut self) -> Result<(), QueueError>;

    /// Takes the delivery up again, at the record after the last delivered.
    ///
    /// # Errors
    /// The queue refused; delivery stays paused.
    fn resume(&mut self) -> Result<(), QueueError>;

    /// How many records of each assigned partition lie past the committed
    /// offset, as far as is known without asking anybody.
    fn lag(&self) -> Vec<(Partition, u64)>;

    /// Which share of the queue's room is taken, from 0 to 1, as far as is
    /// known without asking anybody; `None`: not known, or it has no bound.
    fn fill(&self) -> Option<f64> {
        None
    }

    /// How long the queue keeps a record that nobody has consumed; `None`:
    /// until somebody has, or not known.
    fn retention(&self) -> Option<Duration> {
        None
    }

    /// Leaves the consumers. What was not committed will be delivered to
    /// others, or again to this process later.
    fn close(self: Box<Self>);
}

/// Takes delivered records; breaks when it wants no more for now.
pub type RecordSink<'a> = dyn FnMut(Delivered<'_>) -> ControlFlow<()> + 'a;

/// What a poll tells besides the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Nothing; there may have been records.
    None,
    /// These partitions are now this consumer's too.
    Assigned(Vec<Partition>),
    /// These partitions go to another consumer, once this one
    /// [releases](Subscription::release) them: it should finish and commit
    /// what it has of them within this time.
    Revoked(Vec<Partition>, Duration),
    /// These partitions belong to another consumer already: nothing of them
    /// may be committed. To be [released](Subscription::release) as well.
    Lost(Vec<Partition>),
    /// The queue lost records before they were consumed (its retention is
    /// shorter than the lag, or a disk altered them): about this many.
    Expired(Partition, u64),
}

/// A record as it comes out of the queue.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// Its partition.
    pub partition: Partition,
    /// Its place there.
    pub offset: Offset,
    /// When the queue took it.
    pub queued_at: Timestamp,
    /// Its bytes; `None` for a record without a value, which says nothing.
    pub value: Option<&'a [u8]>,
}

/// Records on their way into the queue, in one piece of memory. Clones share
/// it.
#[derive(Clone, Default)]
pub struct RecordBatch {
    records: Arc<Records>,
}

#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// Where the key and the value of each record end in `bytes`.
    ends: Vec<(usize, usize)>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Clone for Records {
    /// For the one who changes a batch that is shared; the permit stays with
    /// the others.
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), ends: self.ends.clone(), permit: None }
    }
}

impl RecordBatch {
    /// An empty batch with room for this many bytes and records.
    #[must_use]
    pub fn with_capacity(bytes: usize, records: usize) -> Self {
        let (bytes, ends) = (Vec::with_capacity(bytes), Vec::with_capacity(records));
        Self { records: Arc::new(Records { bytes, ends, permit: None }) }
    }

    /// Adds the record of an entry, keyed by its user.
    pub fn push(&mut self, entry: &LogEntry) {
        let records = Arc::make_mut(&mut self.records);
        records.bytes.extend_from_slice(entry.user_id.as_str().as_bytes());
        let key_end = records.bytes.len();
        record::encode(entry, &mut records.bytes);
        records.ends.push((key_end, records.bytes.len()));
    }

    /// Adds a record that is encoded already.
    pub fn push_encoded(&mut self, key: &[u8], value: &[u8]) {
        let records = Arc::make_mut(&mut self.records);
        records.bytes.extend_from_slice(key);
        let key_end = records.bytes.len();
        records.bytes.extend_from_slice(value);
        records.ends.push((key_end, records.bytes.len()));
    }

    /// Ties a share of a memory budget to the batch: it is given back when the
    /// last clone is dropped: when the fate of the last record is known, even
    /// if nobody waits for it any more.
    pub fn hold_until_settled(&mut self, permit: OwnedSemaphorePermit) {
        Arc::make_mut(&mut self.records).permit = Some(permit);
    }

    /// The records, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> RecordRef<'_> {
        let Records { bytes, ends, .. } = &*self.records;
        let start = if index == 0 { 0 } else { ends[index - 1].1 };
        let (key_end, end) = ends[index];
        RecordRef { key: &bytes[start..key_end], value: &bytes[key_end..end] }
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.ends.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.records.bytes.len()
    }
}

impl fmt::Debug for RecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they are the users' data.
        f.debug_struct("RecordBatch")
            .field("records", &self.len())
            .field("size", &self.size())
            .field("permit", &self.records.permit)
            .finish()
    }
}

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// What decides its partition: the user.
    pub key: &'a [u8],
    /// The record, as [`record::encode`] wrote it.
    pub value: &'a [u8],
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue, or the memory before it, is full.
    #[error("the queue is full: {0}")]
    Full(String),
    /// The queue cannot be reached, did not answer in time, or refused.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// The record is larger than the queue takes.
    #[error("the record is too large for the queue: {0}")]
    TooLarge(String),
}

/// What a consumer of the queue is told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    /// For the log and for readiness.
    pub message: String,
    /// Where it comes from.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl QueueError {
    /// An error of our own making.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// What failed, and why.
    pub fn because(
        message: impl fmt::Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { message: format!("{message}: {source}"), source: Some(Box::new(source)) }
    }
}
