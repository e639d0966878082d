//! The connections that only read, and the rule that no query holds up the
//! async runtime, or a connection for long.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::is_busy;
use crate::domain::repository::ReadError;
use crate::infrastructure::embedded;

/// Queries at once: more would only take turns on the disk.
const CONNECTIONS: usize = 4;

/// A query that takes longer is given up, the wait for its turn included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running query looks whether it is given up after so many steps of SQLite's
/// machine: some tens of microseconds.
const STEPS: i32 = 1000;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
    timeout: Duration,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self::with_timeout(path, TIMEOUT)
    }

    pub(super) fn with_timeout(path: PathBuf, timeout: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        Self { path, idle: Mutex::default(), turns, timeout }
    }

    /// Runs a query on a thread where it may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let deadline = Instant::now() + self.timeout;
        let turn = match timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) => return Err(ReadError::Unavailable("the store is closed".to_owned())),
            Err(_) => return Err(ReadError::Unavailable("too many slow queries".to_owned())),
        };
        let mut connection = self.connection().await?;
        let given_up = GivenUp::default();
        let is_given_up = Arc::clone(&given_up.0);
        let mut running = spawn_blocking(move || {
            let is_given_up = move || is_given_up.load(Ordering::Relaxed);
            let result = connection
                .progress_handler(STEPS, Some(is_given_up))
                .and_then(|()| work(&connection));
            // Not before the query ended, also when nobody waits for it.
            drop(turn);
            (connection, result)
        });
        let joined = match timeout_at(deadline, &mut running).await {
            Ok(joined) => joined,
            Err(_) => {
                drop(given_up);
                running.await
            }
        };
        let (connection, result) = joined.map_err(|error| panicked(&error))?;
        match result {
            Ok(answer) => {
                self.idle.lock().push(connection);
                Ok(answer)
            }
            Err(error) => Err(self.read_error(&error)),
        }
    }

    async fn connection(&self) -> Result<Connection, ReadError> {
        if let Some(connection) = self.idle.lock().pop() {
            return Ok(connection);
        }
        let path = self.path.clone();
        let opened = spawn_blocking(move || embedded::open_for_reading(&path)).await;
        opened.map_err(|error| panicked(&error))?.map_err(|error| self.read_error(&error))
    }

    fn read_error(&self, error: &rusqlite::Error) -> ReadError {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                ReadError::Unavailable(format!("the query took longer than {:?}", self.timeout))
            }
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => {
                ReadError::Unavailable(error.to_string())
            }
            _ if is_busy(error) => ReadError::Unavailable(error.to_string()),
            _ => ReadError::Failed(error.to_string()),
        }
    }

    /// No more queries; those that run come to their end.
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle.lock().clear();
    }
}

fn panicked(error: &JoinError) -> ReadError {
    ReadError::Failed(error.to_string())
}

/// Ends a query when it is dropped: its time is up, or its caller has gone.
///
/// Not by `sqlite3_interrupt`: that does nothing to a query that waits for a
/// thread and has yet to begin.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
