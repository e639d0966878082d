//! Connections for reading. Queries run on blocking threads, a few at a time and
//! with a time limit.

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

/// Maximum number of concurrent queries. More would only compete for the disk.
const MAX_CONNECTIONS: usize = 4;

/// Maximum duration of a query, including the wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Number of virtual machine instructions after which a running query checks
/// whether it is cancelled. They take some tens of microseconds.
const STEPS_PER_CHECK: i32 = 1000;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self::with_timeout(path, TIMEOUT)
    }

    pub(super) fn with_timeout(path: PathBuf, timeout: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { path, idle: Mutex::default(), permits, timeout }
    }

    /// Runs a query on a blocking thread.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let deadline = Instant::now() + self.timeout;
        let permit = match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(ReadError::Unavailable("the store is closed".to_owned())),
            Err(_) => return Err(ReadError::Unavailable("too many slow queries".to_owned())),
        };
        let mut connection = self.connection().await?;
        let cancel = CancelOnDrop::default();
        let is_cancelled = Arc::clone(&cancel.0);
        let mut running = spawn_blocking(move || {
            let is_cancelled = move || is_cancelled.load(Ordering::Relaxed);
            let result = connection
                .progress_handler(STEPS_PER_CHECK, Some(is_cancelled))
                .and_then(|()| work(&connection));
            // The query holds its permit until it ends, even if the caller has
            // been cancelled.
            drop(permit);
            (connection, result)
        });
        let joined = match timeout_at(deadline, &mut running).await {
            Ok(joined) => joined,
            Err(_) => {
                drop(cancel);
                running.await
            }
        };
        let (connection, result) = joined.map_err(|error| panicked(&error))?;
        match result {
            Ok(output) => {
                self.idle.lock().push(connection);
                Ok(output)
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

    /// Rejects new queries. Running queries finish.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().clear();
    }
}

fn panicked(error: &JoinError) -> ReadError {
    ReadError::Failed(error.to_string())
}

/// Cancels a query when dropped, because of a timeout or a cancelled caller.
///
/// `sqlite3_interrupt` would have no effect on a query that still waits for a
/// thread.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
