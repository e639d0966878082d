//! Behaviour of this adapter only. The ports' conformance suites test the rest.

mod find;

use std::path::Path;
use std::time::{Duration, Instant};

use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::domain::repository::{LogRepository, ReadError, StoreError, StoreOutcome};

const TIMEOUT: Duration = Duration::from_secs(20);

fn new_store() -> (TempDir, Arc<SqliteStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    (dir, store)
}

fn entry(n: u32) -> LogEntry {
    let mut id = [0; 12];
    id[8..].copy_from_slice(&n.to_be_bytes());
    LogEntry::new(
        LogId::from_bytes(id),
        UserId::new("ada").unwrap(),
        Action::new("LOGIN").unwrap(),
        Timestamp::from_millis(i64::from(n)).unwrap(),
        Metadata::from_json(format!("{{\"n\":  {n}}}")).unwrap(),
    )
}

#[tokio::test]
async fn metadata_is_returned_byte_for_byte() {
    let (_dir, store) = new_store();
    let repository = SqliteRepository::new(store);
    repository.store(&[entry(7)]).await.unwrap();
    let stored = repository.get(entry(7).id).await.unwrap().unwrap();
    assert_eq!(stored.metadata.as_json(), "{\"n\":  7}");
}

#[tokio::test]
async fn a_locked_file_is_transient_and_writing_recovers() {
    let (dir, store) = new_store();
    let repository = SqliteRepository::new(store);
    repository.store(&[entry(1)]).await.unwrap();
    let locked = Connection::open(dir.path().join(FILE)).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = repository.store(&[entry(2)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Transient(_)), "{error}");
    assert!(matches!(repository.health().state, PartState::Down(_)));
    assert!(repository.get(entry(1).id).await.unwrap().is_some(), "reading still works");

    drop(locked);
    let outcomes = repository.store(&[entry(1), entry(2)]).await.unwrap();
    let same = StoreOutcome::Duplicate { conflicting: false };
    assert_eq!(outcomes, [same, StoreOutcome::Stored]);
    assert!(repository.health().state.is_up());
}

#[test]
fn only_locks_are_transient_write_errors() {
    for (code, is_transient) in [
        (rusqlite::ffi::SQLITE_BUSY, true),
        (rusqlite::ffi::SQLITE_LOCKED, true),
        (rusqlite::ffi::SQLITE_FULL, false),
        (rusqlite::ffi::SQLITE_IOERR, false),
        (rusqlite::ffi::SQLITE_READONLY, false),
        (rusqlite::ffi::SQLITE_CORRUPT, false),
        (rusqlite::ffi::SQLITE_CANTOPEN, false),
    ] {
        let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        let error = writer::WriteError::from(error).as_store_error();
        assert_eq!(matches!(error, StoreError::Transient(_)), is_transient, "{error}");
    }
}

fn endless(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
               SELECT max(x) FROM n";
    connection.query_row(sql, [], |row| row.get(0))
}

fn one(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT 1", [], |row| row.get(0))
}

fn readers(dir: &Path, timeout: Duration) -> Readers {
    Readers::with_timeout(dir.join(FILE), timeout)
}

#[tokio::test]
async fn a_query_that_exceeds_the_timeout_is_cancelled() {
    let (dir, _store) = new_store();
    let readers = readers(dir.path(), Duration::from_millis(50));
    for _ in 0..8 {
        let error = readers.read(endless).await.unwrap_err();
        assert!(matches!(&error, ReadError::Unavailable(why) if why.contains("took longer")));
    }
    let readers = self::readers(dir.path(), TIMEOUT);
    assert_eq!(readers.read(one).await.unwrap(), 1);
}

#[tokio::test]
async fn a_query_that_has_not_started_is_cancelled() {
    let (dir, _store) = new_store();
    let readers = readers(dir.path(), Duration::ZERO);
    for _ in 0..8 {
        let result = tokio::time::timeout(TIMEOUT, readers.read(endless)).await.unwrap();
        assert!(matches!(result, Err(ReadError::Unavailable(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_query_ends_when_its_caller_is_cancelled() {
    let (dir, _store) = new_store();
    let readers = readers(dir.path(), TIMEOUT);
    let started = Instant::now();
    for _ in 0..8 {
        let waited = tokio::time::timeout(Duration::from_millis(50), readers.read(endless)).await;
        assert!(waited.is_err());
    }
    assert_eq!(readers.read(one).await.unwrap(), 1, "a connection is free again");
    assert!(started.elapsed() < TIMEOUT);
}

#[tokio::test]
async fn calls_after_close_return_errors() {
    let (dir, store) = new_store();
    let repository = SqliteRepository::new(Arc::clone(&store));
    repository.store(&[entry(1)]).await.unwrap();
    store.close(Instant::now() + TIMEOUT).await;
    assert!(matches!(repository.store(&[entry(2)]).await, Err(StoreError::Transient(_))));
    assert!(matches!(repository.get(entry(1).id).await, Err(ReadError::Unavailable(_))));
    assert!(!repository.health().state.is_up());

    let store = SqliteStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    let repository = SqliteRepository::new(store);
    assert_eq!(repository.get(entry(1).id).await.unwrap(), Some(entry(1)));
}
