//! The embedded queue: [`LogQueue`] in one SQLite file. Here is what callers
//! hold; `writer` owns the file, `merger` merges its log, `subscription` reads
//! it.

mod chunk;
mod inbox;
mod merger;
mod rows;
mod salvage;
mod status;
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
use crate::domain::queue::{AppendError, AppendResult, Durable, LogQueue, Offset};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{QueueError, Subscription};
use crate::infrastructure::embedded::{DataDir, EmbeddedError};

#[doc(hidden)]
pub use self::chunk::fuzz_chunk;
use self::inbox::Outbox;
use self::status::Status;
pub(super) use self::subscription::SqliteSubscription;
use self::writer::Writer;
use super::answers::{Answers, NoAnswer, Reply};

/// How a [`SqliteQueue`] is set up.
#[derive(Debug, Clone, Copy)]
pub struct SqliteQueueOptions {
    /// What health calls it, and its file: `queue` or `spool`.
    pub name: &'static str,
    /// Whether the server can do without it: then a file that cannot be opened
    /// is tried again, and one that is damaged is set aside, and what can be
    /// read of it is taken over.
    pub is_fallback: bool,
    /// What the records may take on disk, in bytes; past it they are refused.
    /// The write-ahead log comes on top: a quarter of this, 32 MiB at most.
    pub max_bytes: u64,
    /// An append that is not answered within this time is not acknowledged.
    pub append_timeout: Duration,
}

impl Default for SqliteQueueOptions {
    /// A queue of 4 GiB.
    fn default() -> Self {
        Self {
            name: "queue",
            is_fallback: false,
            max_bytes: 4 << 30,
            append_timeout: Duration::from_secs(5),
        }
    }
}

/// A durable queue with one partition, 0, in a file of this process.
///
/// Concurrent appends are committed as one transaction, so that they share one
/// sync of the disk. There is one subscription at a time.
pub struct SqliteQueue {
    options: SqliteQueueOptions,
    path: PathBuf,
    jobs: Outbox,
    answers: Answers<Result<(), AppendError>>,
    status: Arc<Status>,
    writer: JoinHandle<()>,
}

/// What the writer is asked to do.
enum Job {
    Append(Append),
    Commit { next_offset: Offset, reply: Sender<Result<(), String>> },
    SetAside { offset: Offset },
    Close { done: oneshot::Sender<()> },
}

/// Records on their way to the writer.
struct Append {
    batch: RecordBatch,
    /// After this the caller has gone: withdrawn, unless its transaction began.
    deadline: Instant,
    reply: Reply<Result<(), AppendError>>,
}

impl SqliteQueue {
    /// Opens the queue in this directory; makes it if there is none. To be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// The file cannot be opened, or is not ours.
    pub fn open(
        data_dir: &Arc<DataDir>,
        options: SqliteQueueOptions,
    ) -> Result<Arc<Self>, EmbeddedError> {
        let path = data_dir.file(&format!("{}.db", options.name));
        let status = Arc::new(Status::new(options.name));
        let (jobs, inbox) = inbox::open();
        let writer = Writer::open(data_dir, &path, options, inbox, Arc::clone(&status))?;
        let writer = std::thread::Builder::new()
            .name(format!("{}-writer", options.name))
            .spawn(move || writer.run())
            .map_err(EmbeddedError::Thread)?;
        Ok(Arc::new(Self {
            options,
            path,
            jobs,
            answers: Answers::within(options.append_timeout),
            status,
            writer,
        }))
    }

    /// The one subscription.
    pub(super) fn read(&self) -> Result<SqliteSubscription, QueueError> {
        if self.status.has_subscriber.swap(true, atomic::Ordering::AcqRel) {
            return Err(QueueError::new("the embedded queue has a subscriber already"));
        }
        Ok(SqliteSubscription::new(self.path.clone(), self.jobs.clone(), Arc::clone(&self.status)))
    }

    /// Whether the file was opened: before, nothing is known of its records.
    pub(super) fn is_open(&self) -> bool {
        self.status.positions().end > 0
    }

    /// How many records are not committed.
    pub(super) fn backlog(&self) -> u64 {
        self.status.positions().backlog()
    }
}

#[async_trait]
impl LogQueue for SqliteQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        let records = batch.len();
        if records == 0 {
            return Vec::new();
        }
        let timeout = self.options.append_timeout;
        let deadline = Instant::now() + timeout;
        let (reply, answer) = self.answers.expect();
        let outcome = if self.jobs.send(Job::Append(Append { batch, deadline, reply })) {
            match answer.await {
                Ok(outcome) => outcome,
                Err(NoAnswer::Gone) => Err(closed()),
                Err(NoAnswer::Late) => {
                    let reason = format!("the disk did not answer within {timeout:?}");
                    Err(AppendError::Unavailable(reason))
                }
            }
        } else {
            Err(closed())
        };
        // One transaction: the records share their fate.
        vec![outcome.map(|()| Durable::Queue); records]
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
        if self.jobs.send(Job::Close { done }) {
            // Past the deadline the process ends; what is open is in the log.
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
