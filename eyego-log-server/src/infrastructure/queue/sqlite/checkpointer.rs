//! Merges the write-ahead log into the queue's file in the background
//! (ADR 0010).
//!
//! By default SQLite checkpoints within the commit that makes the log long
//! enough: it copies up to 16 MiB and syncs the file while all callers wait.
//! Here a thread copies while the writer continues. The writer then copies the
//! few pages added meanwhile and syncs the file, after which the log restarts
//! from its beginning.
//!
//! Failures are not reported: the log keeps whatever was not merged, and the
//! next checkpoint writes it again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::infrastructure::embedded::{self, PAGE_BYTES};

/// Approximate number of pages that a transaction writes in addition to its
/// rows.
const OVERHEAD_PAGES: u64 = 4;

/// The writer's handle to the checkpointing thread. Dropping it waits for the
/// thread to end.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Length of the log, in pages, at which a checkpoint starts.
    threshold_pages: u64,
    /// Approximate length of the log.
    log_pages: u64,
    is_requested: bool,
    is_done: Arc<AtomicBool>,
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts a thread that merges the log of this file.
    pub(super) fn start(name: &str, path: &Path, threshold_pages: u32) -> std::io::Result<Self> {
        let (requests, requested) = mpsc::sync_channel(1);
        let is_done = Arc::new(AtomicBool::new(false));
        let (file, done) = (path.to_owned(), Arc::clone(&is_done));
        let thread = std::thread::Builder::new()
            .name(format!("{name}-checkpoint"))
            .spawn(move || run(&file, &requested, &done))?;
        Ok(Self {
            threshold_pages: u64::from(threshold_pages),
            log_pages: 0,
            is_requested: false,
            is_done,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Records that a transaction with `bytes` of rows was written, and starts
    /// or completes a checkpoint if it is due.
    pub(super) fn after_write(&mut self, connection: &Connection, bytes: usize) {
        self.log_pages += (bytes as u64).div_ceil(u64::from(PAGE_BYTES)) + OVERHEAD_PAGES;
        if self.is_requested {
            if self.is_done.swap(false, Ordering::AcqRel) {
                self.is_requested = false;
                self.log_pages = checkpoint(connection);
            }
        } else if self.log_pages >= self.threshold_pages {
            self.is_requested =
                self.requests.as_ref().is_some_and(|requests| requests.try_send(()).is_ok());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The result of the thread is `()`.
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, requested: &Receiver<()>, is_done: &AtomicBool) {
    while requested.recv().is_ok() {
        if let Ok(connection) = embedded::open_for_checkpoints(path) {
            checkpoint(&connection);
        }
        is_done.store(true, Ordering::Release);
    }
}

/// Merges as much of the log as possible without blocking anyone, and returns
/// the number of pages left, which a reader may still need.
fn checkpoint(connection: &Connection) -> u64 {
    let outcome = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (in_log, merged): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(in_log - merged)
    });
    u64::try_from(outcome.unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    const THRESHOLD_PAGES: u32 = 100;
    const ROW_BYTES: usize = 4000;

    struct Fixture {
        path: PathBuf,
        connection: Connection,
        checkpointer: Checkpointer,
        _dir: TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let connection = Connection::open(&path).unwrap();
            let sql = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(x)";
            connection.execute_batch(sql).unwrap();
            let checkpointer = Checkpointer::start("a", &path, THRESHOLD_PAGES).unwrap();
            Self { path, connection, checkpointer, _dir: dir }
        }

        fn insert(&mut self) {
            self.connection.execute("INSERT INTO t VALUES (?1)", [[7_u8; ROW_BYTES]]).unwrap();
            self.checkpointer.after_write(&self.connection, ROW_BYTES);
        }

        fn log_bytes(&self) -> u64 {
            std::fs::metadata(self.path.with_extension("db-wal")).unwrap().len()
        }
    }

    #[test]
    fn log_restarts_while_the_writer_continues() {
        let mut file = Fixture::new();
        for _ in 0..20 * THRESHOLD_PAGES {
            file.insert();
            // A sync takes about as long.
            std::thread::sleep(Duration::from_micros(100));
        }
        let max = u64::from(10 * THRESHOLD_PAGES * PAGE_BYTES);
        assert!(file.log_bytes() < max, "{} bytes", file.log_bytes());
        let sql = "SELECT count(*) FROM t";
        let rows: u32 = file.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 20 * THRESHOLD_PAGES);
    }

    #[test]
    fn pages_that_a_reader_needs_are_merged_once_it_has_finished() {
        let mut file = Fixture::new();
        let reader = Connection::open(&file.path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        for _ in 0..3 * THRESHOLD_PAGES {
            file.insert();
        }
        // Replaces the checkpointer, because two checkpoints cannot run at the same time.
        file.checkpointer = Checkpointer::start("a", &file.path, THRESHOLD_PAGES).unwrap();
        assert!(checkpoint(&file.connection) > 0);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(checkpoint(&file.connection), 0);
        // The log restarts from its beginning, so it does not grow.
        let before = file.log_bytes();
        file.insert();
        assert_eq!(file.log_bytes(), before);
    }
}
