//! The thread that writes the store: runs all tasks that wait in one
//! transaction, so that concurrent bulks share one sync. What the tasks do is
//! theirs.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::is_busy;
use crate::domain::repository::StoreError;
use crate::infrastructure::embedded::{EmbeddedError, WriterConnection};

/// A transaction takes so many tasks at most, a bulk each.
const MAX_ROUND_TASKS: usize = 16;

/// The caller's end of the thread.
pub(super) struct StoreWriter {
    jobs: Sender<Job>,
    trouble: Arc<Mutex<Option<String>>>,
}

enum Job {
    Task(Box<dyn Task>),
    Close(oneshot::Sender<()>),
}

/// Something to do within a transaction that may hold others' work too.
trait Task: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;

    /// Tells the caller: done and durable, or why nothing is known.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

struct TaskOf<T, W> {
    work: W,
    output: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: FnMut(&Connection) -> rusqlite::Result<T> + Send> Task for TaskOf<T, W> {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.output = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        let Self { output, reply, .. } = *self;
        let answer = match (failure, output) {
            (None, Some(output)) => Ok(output),
            (Some(failure), _) => Err(failure),
            (None, None) => Err(closed()),
        };
        // A caller that has gone needs no answer.
        let _ = reply.send(answer);
    }
}

impl StoreWriter {
    pub(super) fn start(file: WriterConnection) -> Result<Self, EmbeddedError> {
        let (jobs, waiting) = mpsc::channel();
        let trouble = Arc::new(Mutex::new(None));
        let thread = WriterThread { file, jobs: waiting, trouble: Arc::clone(&trouble) };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(EmbeddedError::Thread)?;
        Ok(Self { jobs, trouble })
    }

    /// Has `work` done in a transaction; answers when it is durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(TaskOf { work, output: None, reply });
        self.jobs.send(Job::Task(task)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) async fn close(&self, deadline: std::time::Instant) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).is_ok() {
            // Past the deadline the process ends; what is open is rolled back.
            let _ = tokio::time::timeout_at(deadline.into(), closed).await;
        }
    }

    /// What keeps the store from being written, as last seen.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

fn closed() -> StoreError {
    StoreError::Transient("the store is closed".to_owned())
}

struct WriterThread {
    file: WriterConnection,
    jobs: Receiver<Job>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl WriterThread {
    fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let mut tasks = Vec::new();
            let mut close = None;
            for job in [first].into_iter().chain(self.jobs.try_iter()) {
                match job {
                    Job::Task(task) => tasks.push(task),
                    Job::Close(done) => close = Some(done),
                }
                if close.is_some() || tasks.len() >= MAX_ROUND_TASKS {
                    break;
                }
            }
            self.write(tasks);
            if let Some(done) = close {
                self.report(Some("closed".to_owned()));
                // Who hears of it may open the file again.
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    fn write(&mut self, mut tasks: Vec<Box<dyn Task>>) {
        if tasks.is_empty() {
            return;
        }
        let outcome = self.try_write(&mut tasks);
        match &outcome {
            Ok(()) => self.report(None),
            Err(error) => {
                self.file.discard();
                self.report(Some(error.to_string()));
            }
        }
        for task in tasks {
            task.answer(outcome.as_ref().err().map(WriteError::as_store_error));
        }
    }

    fn try_write(&mut self, tasks: &mut [Box<dyn Task>]) -> Result<(), WriteError> {
        let connection = self.file.get()?;
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        for task in tasks {
            task.run(&transaction)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn report(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Open(#[from] EmbeddedError),
    #[error("cannot write the store: {0}")]
    Write(#[from] rusqlite::Error),
}

impl WriteError {
    /// A lock passes; a disk that is full, read-only or broken has to be
    /// mended.
    pub(super) fn as_store_error(&self) -> StoreError {
        match self {
            Self::Write(error) | Self::Open(EmbeddedError::Sqlite { source: error, .. })
                if is_busy(error) =>
            {
                StoreError::Transient(self.to_string())
            }
            Self::Open(_) | Self::Write(_) => StoreError::Operator(self.to_string()),
        }
    }
}
