//! Merges the write-ahead log into the queue's file beside the writer.
//!
//! SQLite does that within the commit that makes the log long enough: up to 16
//! MiB are copied and synced, and all callers wait for it. Here a thread copies
//! while the writer goes on; the writer copies what came meanwhile, which is
//! little, and syncs the file, which SQLite does only once all is merged: 6 ms
//! for 16 MiB (measured). Then the log begins anew.
//!
//! No failure is reported from here: the log keeps what was not merged, and the
//! next attempt writes it again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::infrastructure::embedded::{self, PAGE_BYTES};

/// What a transaction writes beside its records, in pages, about.
const PAGES_BESIDE: u64 = 4;

/// The writer's end. Dropped, it waits for the thread.
#[derive(Debug)]
pub(super) struct Merger {
    /// The log is merged at so many pages.
    enough: u64,
    /// So many are in the log, about.
    pages: u64,
    is_ordered: bool,
    is_done: Arc<AtomicBool>,
    orders: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// Merges the log of this file at so many pages.
    pub(super) fn start(name: &str, path: &Path, enough: u32) -> std::io::Result<Self> {
        let (orders, ordered) = mpsc::sync_channel(1);
        let is_done = Arc::new(AtomicBool::new(false));
        let (file, done) = (path.to_owned(), Arc::clone(&is_done));
        let thread = std::thread::Builder::new()
            .name(format!("{name}-merger"))
            .spawn(move || work(&file, &ordered, &done))?;
        Ok(Self {
            enough: u64::from(enough),
            pages: 0,
            is_ordered: false,
            is_done,
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Hears of a transaction with rows of so many bytes.
    pub(super) fn written(&mut self, connection: &Connection, bytes: usize) {
        self.pages += (bytes as u64).div_ceil(u64::from(PAGE_BYTES)) + PAGES_BESIDE;
        if self.is_ordered {
            if self.is_done.swap(false, Ordering::AcqRel) {
                self.is_ordered = false;
                self.pages = merge(connection);
            }
        } else if self.pages >= self.enough {
            self.is_ordered =
                self.orders.as_ref().is_some_and(|orders| orders.try_send(()).is_ok());
        }
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn work(path: &Path, ordered: &Receiver<()>, is_done: &AtomicBool) {
    while ordered.recv().is_ok() {
        if let Ok(connection) = embedded::open_for_checkpoints(path) {
            merge(&connection);
        }
        is_done.store(true, Ordering::Release);
    }
}

/// Merges what can be merged without anybody's waiting, and answers how many
/// pages are left: a reader may stand in the way.
fn merge(connection: &Connection) -> u64 {
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

    const ENOUGH: u32 = 100;
    const ROW_BYTES: usize = 4000;

    struct Fixture {
        path: PathBuf,
        connection: Connection,
        merger: Merger,
        _dir: TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let connection = Connection::open(&path).unwrap();
            let sql = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(x)";
            connection.execute_batch(sql).unwrap();
            let merger = Merger::start("a", &path, ENOUGH).unwrap();
            Self { path, connection, merger, _dir: dir }
        }

        fn insert(&mut self) {
            self.connection.execute("INSERT INTO t VALUES (?1)", [[7_u8; ROW_BYTES]]).unwrap();
            self.merger.written(&self.connection, ROW_BYTES);
        }

        fn log_bytes(&self) -> u64 {
            std::fs::metadata(self.path.with_extension("db-wal")).unwrap().len()
        }
    }

    #[test]
    fn the_log_begins_anew_while_the_writer_goes_on() {
        let mut file = Fixture::new();
        for _ in 0..20 * ENOUGH {
            file.insert();
            // As a sync would take it.
            std::thread::sleep(Duration::from_micros(100));
        }
        let most = u64::from(10 * ENOUGH * PAGE_BYTES);
        assert!(file.log_bytes() < most, "{} bytes", file.log_bytes());
        let sql = "SELECT count(*) FROM t";
        let rows: u32 = file.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 20 * ENOUGH);
    }

    #[test]
    fn a_reader_in_the_way_is_waited_for() {
        let mut file = Fixture::new();
        let reader = Connection::open(&file.path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        for _ in 0..3 * ENOUGH {
            file.insert();
        }
        // While its thread merges nobody else can; a new one has no order.
        file.merger = Merger::start("a", &file.path, ENOUGH).unwrap();
        assert!(merge(&file.connection) > 0);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(merge(&file.connection), 0);
        // From its beginning: it grows no more.
        let before = file.log_bytes();
        file.insert();
        assert_eq!(file.log_bytes(), before);
    }
}
