//! The thread that writes the store. It runs all waiting tasks in one transaction
//! (group commit), so that concurrent bulks share one sync.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::is_busy;
use super::purge::{self, PurgeError};
use super::snapshot_gate::SnapshotGate;
use crate::domain::repeated::Repeated;
use crate::domain::repository::StoreError;
use crate::infrastructure::embedded::{self, CHECK_INTERVAL, EmbeddedError, WriterConnection};

/// Maximum number of tasks in a transaction. A task is usually a bulk.
const MAX_TASKS: usize = 16;

/// Maximum time that writing waits for readers to exchange their snapshots.
const MAX_WAIT_FOR_READERS: Duration = Duration::from_secs(1);

/// Handle of the thread.
pub(super) struct StoreWriter {
    jobs: Sender<Job>,
    error: Arc<Mutex<Option<String>>>,
}

enum Job {
    Task(Box<dyn Task>),
    Purge(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<()>),
}

/// Work to do in a transaction that can contain other tasks too.
trait Task: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;

    /// Sends the result to the caller after the commit. `error` is the reason the
    /// commit failed.
    fn complete(self: Box<Self>, error: Option<StoreError>);
}

struct ClosureTask<T, W, C> {
    work: W,
    committed: C,
    output: Option<T>,
    sender: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W, C> Task for ClosureTask<T, W, C>
where
    T: Send,
    W: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    C: FnOnce(&T) + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.output = Some((self.work)(connection)?);
        Ok(())
    }

    fn complete(self: Box<Self>, error: Option<StoreError>) {
        let Self { output, sender, committed, .. } = *self;
        let result = match (error, output) {
            (None, Some(output)) => {
                committed(&output);
                Ok(output)
            }
            (Some(error), _) => Err(error),
            (None, None) => Err(closed()),
        };
        // Sending fails if the caller was cancelled.
        let _ = sender.send(result);
    }
}

impl StoreWriter {
    /// Starts the thread. It merges the log once it is longer than `log`
    /// allows.
    pub(super) fn start(file: WriterConnection, log: LogLimit) -> Result<Self, EmbeddedError> {
        let (jobs, receiver) = mpsc::channel();
        let error = Arc::new(Mutex::new(None));
        let thread = WriterThread {
            file,
            log,
            jobs: receiver,
            error: Arc::clone(&error),
            repeated: Repeated::default(),
        };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(EmbeddedError::Thread)?;
        Ok(Self { jobs, error })
    }

    /// Runs `work` in a transaction and returns its result once it is durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_then(work, |_| ()).await
    }

    /// Does the same as [`write`](Self::write), and runs `committed` with the result on
    /// the writer's thread, in the order of the commits.
    pub(super) async fn write_then<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        let task = Box::new(ClosureTask { work, committed, output: None, sender });
        self.jobs.send(Job::Task(task)).map_err(|_| closed())?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Overwrites what deleted rows left in the file and its write-ahead log.
    pub(super) async fn purge(&self) -> Result<(), StoreError> {
        let (sender, result) = oneshot::channel();
        self.jobs.send(Job::Purge(sender)).map_err(|_| closed())?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Runs all waiting tasks and closes the file, or returns at `deadline`.
    pub(super) async fn close(&self, deadline: Instant) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).is_ok() {
            // After the deadline the process exits, which rolls back the open
            // transaction.
            let _ = tokio::time::timeout_at(deadline.into(), closed).await;
        }
    }

    /// Returns the error of the last transaction, if it failed.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().clone()
    }
}

fn closed() -> StoreError {
    StoreError::Transient("the store is closed".to_owned())
}

/// The length at which the write-ahead log is merged even if readers have to be
/// held back for it.
pub(super) struct LogLimit {
    /// Path of the log.
    pub(super) path: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) gate: Arc<SnapshotGate>,
}

impl LogLimit {
    fn is_exceeded(&self) -> bool {
        self.path.metadata().is_ok_and(|log| log.len() > self.max_bytes)
    }
}

struct WriterThread {
    file: WriterConnection,
    log: LogLimit,
    jobs: Receiver<Job>,
    error: Arc<Mutex<Option<String>>>,
    repeated: Repeated,
}

impl WriterThread {
    fn run(mut self) {
        loop {
            let first = match self.jobs.recv_timeout(CHECK_INTERVAL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.check_files();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut tasks = Vec::new();
            let (mut purge, mut close) = (None, None);
            for job in [first].into_iter().chain(self.jobs.try_iter()) {
                match job {
                    Job::Task(task) => tasks.push(task),
                    Job::Purge(done) => purge = Some(done),
                    Job::Close(done) => close = Some(done),
                }
                if purge.is_some() || close.is_some() || tasks.len() >= MAX_TASKS {
                    break;
                }
            }
            self.write(tasks);
            if let Some(done) = purge {
                let result = self.purge();
                // The caller may have stopped waiting.
                let _ = done.send(result.map_err(|error| error.as_store_error()));
            }
            if let Some(done) = close {
                self.set_error(Some("closed".to_owned()));
                // Close the file first: the receiver may open it again.
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Checks the files while there is nothing to write. A file that failed is
    /// opened again.
    fn check_files(&mut self) {
        let outcome = if self.file.is_open() {
            match self.file.check() {
                Ok(()) => return,
                Err(error) => Err(error.into()),
            }
        } else {
            self.try_write(&mut [])
        };
        self.note(&outcome);
    }

    fn note(&mut self, outcome: &Result<(), WriteError>) {
        let Err(error) = outcome else {
            self.set_error(None);
            return;
        };
        self.file.discard();
        let reason = error.to_string();
        if let Some(count) = self.repeated.note(&reason, 1, Instant::now()) {
            tracing::error!(reason, count, "the store cannot be written");
        }
        self.set_error(Some(reason));
    }

    fn write(&mut self, mut tasks: Vec<Box<dyn Task>>) {
        if tasks.is_empty() {
            return;
        }
        let outcome = self.try_write(&mut tasks);
        self.note(&outcome);
        if outcome.is_ok() && self.log.is_exceeded() {
            self.merge_log();
        }
        for task in tasks {
            task.complete(outcome.as_ref().err().map(WriteError::as_store_error));
        }
    }

    /// Merges the whole log into the file. Readers exchange their snapshots, so
    /// that there is a moment without any.
    fn merge_log(&mut self) {
        let Ok(connection) = self.file.get() else { return };
        self.log.gate.run_alone(MAX_WAIT_FOR_READERS, || {
            // The log keeps what is not merged, for example because an `sqlite3`
            // shell reads the file. The next transaction tries again.
            let merged = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            if let Err(error) = merged {
                tracing::debug!(%error, "the write-ahead log was not merged");
            }
        });
    }

    fn purge(&mut self) -> Result<(), WriteError> {
        let connection = self.file.get()?;
        purge::rewrite(connection)?;
        let mut emptied = None;
        self.log.gate.run_alone(MAX_WAIT_FOR_READERS, || {
            emptied = Some(embedded::empty_log(connection));
        });
        Ok(emptied.unwrap_or_else(|| embedded::empty_log(connection))?)
    }

    fn try_write(&mut self, tasks: &mut [Box<dyn Task>]) -> Result<(), WriteError> {
        self.file.check()?;
        let connection = self.file.get()?;
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        for task in tasks {
            task.run(&transaction)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock() = error;
    }
}

/// The reason a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Open(#[from] EmbeddedError),
    #[error("cannot write the store: {0}")]
    Write(#[from] rusqlite::Error),
    #[error(transparent)]
    Purge(#[from] PurgeError),
}

impl WriteError {
    /// Converts the error. A lock is transient. An operator has to fix a disk
    /// that is full, read-only or damaged.
    pub(super) fn as_store_error(&self) -> StoreError {
        match self {
            Self::Write(error)
            | Self::Purge(PurgeError::Write(error))
            | Self::Open(EmbeddedError::Sqlite { source: error, .. })
                if is_busy(error) =>
            {
                StoreError::Transient(self.to_string())
            }
            Self::Open(_) | Self::Write(_) | Self::Purge(_) => {
                StoreError::Operator(self.to_string())
            }
        }
    }
}
