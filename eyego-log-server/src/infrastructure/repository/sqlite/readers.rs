//! Connections for reading. Queries run on blocking threads, a few of each kind at
//! a time and with a time limit.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLockReadGuard};
use rusqlite::{Connection, ErrorCode};
use tokio::task::spawn_blocking;

use super::is_busy;
use super::snapshot_gate::SnapshotGate;
use crate::domain::read::ReadError;
use crate::infrastructure::embedded;
use crate::infrastructure::repository::limits::{MAX_READ_TIME, ReadKind, ReadLimits};

/// Maximum number of concurrent reads: by id, of ranges, and scans. More would
/// only compete for the disk.
const MAX_READS: (usize, usize, usize) = (8, 8, 4);

/// Number of virtual machine instructions after which a running query checks
/// whether it is cancelled. They take some tens of microseconds.
const STEPS_PER_CHECK: i32 = 1000;

/// Time after which a query yields the CPU. Otherwise the scheduler gives a thread that
/// computes about 3 ms at a time, for which the threads of ingest would wait (ADR 0045).
const TURN: Duration = Duration::from_micros(50);

/// Time after its deadline at which a query is no longer waited for.
const GRACE: Duration = Duration::from_millis(500);

pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    limits: ReadLimits,
    gate: Arc<SnapshotGate>,
    timeout: Duration,
}

/// The reason a query failed.
#[derive(Debug)]
pub(super) enum QueryError {
    Sqlite(rusqlite::Error),
    Read(ReadError),
    /// The caller is gone, or the time limit has passed.
    Interrupted,
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            Self::Interrupted
        } else {
            Self::Sqlite(error)
        }
    }
}

impl From<ReadError> for QueryError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// A query's view of the file: one snapshot, unless a checkpoint needs it back.
pub(super) struct Snapshot<'a> {
    connection: &'a Connection,
    stop: Stop,
    gate: &'a SnapshotGate,
    pass: Option<RwLockReadGuard<'a, ()>>,
}

/// When a query has to stop, and when it lets other threads run.
#[derive(Clone)]
struct Stop {
    is_cancelled: Arc<AtomicBool>,
    deadline: Instant,
    yielded: Cell<Instant>,
}

impl Stop {
    fn at(deadline: Instant, is_cancelled: Arc<AtomicBool>) -> Self {
        Self { is_cancelled, deadline, yielded: Cell::new(Instant::now()) }
    }

    /// Lets other threads run if the turn of the query is over, and returns whether it has
    /// to stop.
    fn must_stop(&self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.yielded.get()) >= TURN {
            thread::yield_now();
            self.yielded.set(Instant::now());
        }
        self.is_cancelled.load(Ordering::Relaxed) || now >= self.deadline
    }
}

impl<'a> Snapshot<'a> {
    fn take(
        connection: &'a Connection,
        gate: &'a SnapshotGate,
        stop: Stop,
    ) -> Result<Self, QueryError> {
        let mut snapshot = Self { connection, stop, gate, pass: None };
        snapshot.begin()?;
        Ok(snapshot)
    }

    /// Takes a snapshot for a query without a time limit.
    #[cfg(test)]
    pub(super) fn unlimited(connection: &'a Connection, gate: &'a SnapshotGate) -> Self {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let stop = Stop::at(deadline, Arc::default());
        Self::take(connection, gate, stop).unwrap()
    }

    fn begin(&mut self) -> Result<(), QueryError> {
        self.pass = Some(self.gate.enter(self.stop.deadline).ok_or(QueryError::Interrupted)?);
        self.connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(())
    }

    /// Ends the snapshot. Without this, the connection must be closed.
    pub(super) fn end(&mut self) -> Result<(), QueryError> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.pass = None;
        Ok(())
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// Returns an error if the query has to stop. To be called for each row.
    pub(super) fn check(&self) -> Result<(), QueryError> {
        if self.stop.must_stop() { Err(QueryError::Interrupted) } else { Ok(()) }
    }

    /// Returns `true` if [`renew`](Self::renew) should be called soon.
    pub(super) fn is_wanted_back(&self) -> bool {
        self.gate.is_closing()
    }

    /// Exchanges the snapshot for a current one if a checkpoint waits for it. No
    /// statement may be running.
    pub(super) fn renew(&mut self) -> Result<(), QueryError> {
        if self.is_wanted_back() {
            self.end()?;
            self.begin()?;
        }
        Ok(())
    }
}

impl Readers {
    pub(super) fn new(path: PathBuf, gate: Arc<SnapshotGate>) -> Self {
        Self::with_timeout(path, gate, MAX_READ_TIME)
    }

    pub(super) fn with_timeout(path: PathBuf, gate: Arc<SnapshotGate>, timeout: Duration) -> Self {
        let (by_id, ranges, scans) = MAX_READS;
        let limits = ReadLimits::new(by_id, ranges, scans);
        Self { path, idle: Arc::default(), limits, gate, timeout }
    }

    /// Runs a query on a blocking thread.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        kind: ReadKind,
        work: impl FnOnce(&mut Snapshot<'_>) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = self.limits.acquire(kind).await?;
        let deadline = Instant::now() + self.timeout;
        let cancel = CancelOnDrop::default();
        let stop = Stop::at(deadline, Arc::clone(&cancel.0));
        let (path, idle, gate) =
            (self.path.clone(), Arc::clone(&self.idle), Arc::clone(&self.gate));
        let running = spawn_blocking(move || {
            // Held until the query has ended, even if its caller is gone.
            let _permit = permit;
            let pooled = idle.lock().pop();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => embedded::open_for_reading(&path)?,
            };
            let progress = AssertUnwindSafe(stop.clone());
            connection.progress_handler(STEPS_PER_CHECK, Some(move || progress.must_stop()))?;
            let mut snapshot = Snapshot::take(&connection, &gate, stop)?;
            let output = work(&mut snapshot)?;
            snapshot.end()?;
            drop(snapshot);
            // After an error, the connection is closed instead.
            idle.lock().push(connection);
            Ok(output)
        });
        match tokio::time::timeout_at((deadline + GRACE).into(), running).await {
            Ok(Ok(result)) => result.map_err(|error| self.read_error(error)),
            Ok(Err(panic)) => Err(ReadError::Failed(panic.to_string())),
            Err(_) => Err(ReadError::TimedOut(self.timeout)),
        }
    }

    fn read_error(&self, error: QueryError) -> ReadError {
        let error = match error {
            QueryError::Sqlite(error) => error,
            QueryError::Read(error) => return error,
            QueryError::Interrupted => return ReadError::TimedOut(self.timeout),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => {
                ReadError::Unavailable(error.to_string())
            }
            _ if is_busy(&error) => ReadError::Unavailable(error.to_string()),
            _ => ReadError::Failed(error.to_string()),
        }
    }

    /// Rejects new queries. Running queries finish.
    pub(super) fn close(&self) {
        self.limits.close();
        self.idle.lock().clear();
    }
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
