//! The embedded queue: [`LogQueue`] in one SQLite file. "Embedded queue" is the
//! product's term; the module is named after the engine.
//!
//! | module | contents |
//! |---|---|
//! | `submissions` | passes jobs from callers to the writer |
//! | `writer` | the thread that owns the file and commits jobs in groups |
//! | `checkpointer` | merges the write-ahead log into the file |
//! | `subscription` | reads records and commits offsets |
//! | `admission` | decides when to refuse records because storing lags |
//! | `rows`, `chunk` | the tables, and the encoding of records within a row |
//! | `purge` | overwrites records that were stored |
//! | `recovery` | quarantines a damaged file and imports its readable records |
//! | `status`, `positions` | state shared between these threads |

mod admission;
mod checkpointer;
mod chunk;
mod positions;
mod purge;
mod recovery;
mod rows;
mod status;
mod submissions;
mod subscription;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, atomic};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::domain::health::{PartHealth, PartState};
use crate::domain::position::Offset;
use crate::domain::queue::{AppendError, AppendResult, Durable, LogQueue};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{QueueError, Subscription};
use crate::infrastructure::embedded::{DataDir, EmbeddedError};

#[cfg(feature = "fuzzing")]
pub use self::chunk::fuzz_chunk;
use self::status::{Status, SubmittedRecords};
use self::submissions::Submitter;
pub(super) use self::subscription::SqliteSubscription;
use self::writer::Writer;

/// Options of a [`SqliteQueue`].
#[derive(Debug, Clone, Copy)]
pub struct SqliteQueueOptions {
    /// Name of the queue's health part and of its file: `queue` or `spool`.
    pub name: &'static str,
    /// Whether the server can run without this queue. If so, a file that cannot
    /// be opened is retried, and a damaged file is quarantined and its readable
    /// records are imported into a new one. A fallback accepts records however
    /// long it takes to drain; otherwise, records are refused while storing
    /// lags by more than about a second.
    pub is_fallback: bool,
    /// Maximum size of the records on disk, in bytes. Further records are
    /// refused. The write-ahead log adds a quarter of this, at most 32 MiB.
    pub max_bytes: u64,
    /// Time after which an append that has not completed is not acknowledged.
    pub append_timeout: Duration,
}

impl Default for SqliteQueueOptions {
    /// Returns the options of the server's queue: 4 GiB, and 5 s per append.
    fn default() -> Self {
        Self {
            name: "queue",
            is_fallback: false,
            max_bytes: 4 << 30,
            append_timeout: Duration::from_secs(5),
        }
    }
}

/// A durable queue with one partition, 0, in a local file.
///
/// Concurrent appends are committed as a group: one transaction and one sync of
/// the disk. Only one subscription can exist at a time.
pub struct SqliteQueue {
    options: SqliteQueueOptions,
    path: PathBuf,
    submitter: Submitter,
    status: Arc<Status>,
    writer: JoinHandle<()>,
}

/// A request to the writer.
enum Job {
    Append(Append),
    Commit { next_offset: Offset, reply: Sender<Result<(), String>> },
    Quarantine { offset: Offset },
    Close { done: oneshot::Sender<()> },
}

/// Records to be written.
struct Append {
    batch: RecordBatch,
    /// The caller stops waiting at this time. The writer withdraws the records
    /// unless their transaction has begun.
    deadline: Instant,
    reply: oneshot::Sender<Result<(), AppendError>>,
    _submitted: SubmittedRecords,
}

impl SqliteQueue {
    /// Opens the queue in this directory, creating its file if necessary.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, belongs to another
    /// program, or has another format version.
    pub fn open(
        data_dir: &Arc<DataDir>,
        options: SqliteQueueOptions,
    ) -> Result<Arc<Self>, EmbeddedError> {
        let path = data_dir.file(&format!("{}.db", options.name));
        let status = Arc::new(Status::new(options.name));
        let (submitter, submissions) = submissions::channel();
        let writer = Writer::open(data_dir, &path, options, submissions, Arc::clone(&status))?;
        let writer = std::thread::Builder::new()
            .name(format!("{}-writer", options.name))
            .spawn(move || writer.run())
            .map_err(EmbeddedError::Thread)?;
        Ok(Arc::new(Self { options, path, submitter, status, writer }))
    }

    /// Returns the subscription, unless it exists already.
    pub(super) fn read(&self) -> Result<SqliteSubscription, QueueError> {
        if self.status.has_subscriber.swap(true, atomic::Ordering::AcqRel) {
            return Err(QueueError::new("the embedded queue already has a subscriber"));
        }
        let (submitter, status) = (self.submitter.clone(), Arc::clone(&self.status));
        Ok(SqliteSubscription::new(self.path.clone(), submitter, status))
    }

    /// Returns `true` once the file has been opened. Before that, its backlog
    /// is unknown.
    pub(super) fn is_open(&self) -> bool {
        self.status.positions().end > 0
    }

    /// Returns the number of uncommitted records.
    pub(super) fn backlog(&self) -> u64 {
        self.status.positions().backlog()
    }

    /// Returns the reason if storing lags too far behind to accept more records.
    fn lag_refusal(&self) -> Option<AppendError> {
        if self.options.is_fallback {
            return None;
        }
        let wait = self.status.excessive_wait(Instant::now())?;
        Some(AppendError::Lagging(format!("{wait:.1?}")))
    }

    async fn append_atomically(&self, batch: RecordBatch) -> Result<(), AppendError> {
        let records = batch.len();
        if let Some(refusal) = self.lag_refusal() {
            return Err(refusal);
        }
        let timeout = self.options.append_timeout;
        let deadline = Instant::now() + timeout;
        let (reply, outcome) = oneshot::channel();
        let submitted = SubmittedRecords::new(Arc::clone(&self.status), records);
        let append = Append { batch, deadline, reply, _submitted: submitted };
        if !self.submitter.submit(Job::Append(append)) {
            return Err(closed());
        }
        match tokio::time::timeout_at(deadline.into(), outcome).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| Err(closed())),
            Err(_) => {
                let reason = format!("the disk did not complete the write within {timeout:?}");
                Err(AppendError::Unavailable(reason))
            }
        }
    }
}

#[async_trait]
impl LogQueue for SqliteQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        let records = batch.len();
        if records == 0 {
            return Vec::new();
        }
        // A batch is written in one transaction, so its records share the outcome.
        let outcome = self.append_atomically(batch).await;
        vec![outcome.map(|()| Durable::Queue); records]
    }

    fn refusal(&self) -> Option<AppendError> {
        if self.status.is_full.load(atomic::Ordering::Relaxed) {
            let max = self.options.max_bytes;
            return Some(AppendError::Full(format!("its {max} bytes are in use")));
        }
        self.lag_refusal()
    }

    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError> {
        Ok(Box::new(self.read()?))
    }

    fn health(&self) -> PartHealth {
        let state = if self.writer.is_finished() {
            PartState::Down("closed".to_owned())
        } else {
            self.status.state()
        };
        PartHealth { name: self.options.name, state }
    }

    async fn close(&self, deadline: Instant) {
        let (done, closed) = oneshot::channel();
        if self.submitter.submit(Job::Close { done }) {
            // If the deadline passes, the process exits; committed records are
            // in the write-ahead log.
            let _ = tokio::time::timeout_at(deadline.into(), closed).await;
        }
    }
}

fn closed() -> AppendError {
    AppendError::Unavailable("the queue is closed".to_owned())
}

impl fmt::Debug for SqliteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteQueue")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
