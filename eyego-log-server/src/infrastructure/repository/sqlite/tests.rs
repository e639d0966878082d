//! Behaviour of this adapter only. The ports' conformance suites test the rest.

mod find;

use std::path::Path;
use std::time::{Duration, Instant};

use eyego_log_core::query::MetadataFilter;
use eyego_log_core::{Action, LogEntry, LogId, LogQuery, Metadata, Timestamp, UserId};
use rusqlite::Connection;
use tempfile::TempDir;

use super::readers::{QueryError, Snapshot};
use super::*;
use crate::domain::read::{ReadError, Unlimited};
use crate::domain::repository::{LogRepository, StoreError, StoreOutcome};
use crate::infrastructure::repository::limits::ReadKind;

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

fn endless(file: &mut Snapshot<'_>) -> Result<i64, QueryError> {
    let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
               SELECT max(x) FROM n";
    Ok(file.connection().query_row(sql, [], |row| row.get(0))?)
}

fn one(file: &mut Snapshot<'_>) -> Result<i64, QueryError> {
    Ok(file.connection().query_row("SELECT 1", [], |row| row.get(0))?)
}

fn readers(dir: &Path, timeout: Duration) -> Readers {
    Readers::with_timeout(dir.join(FILE), Arc::default(), timeout)
}

#[tokio::test]
async fn a_query_that_exceeds_the_timeout_is_cancelled() {
    let (dir, _store) = new_store();
    let readers = readers(dir.path(), Duration::from_millis(50));
    for _ in 0..8 {
        let error = readers.read(ReadKind::Scan, endless).await.unwrap_err();
        assert!(matches!(error, ReadError::TimedOut(_)), "{error}");
    }
    let readers = self::readers(dir.path(), TIMEOUT);
    assert_eq!(readers.read(ReadKind::Scan, one).await.unwrap(), 1);
}

#[tokio::test]
async fn a_query_that_has_not_started_is_cancelled() {
    let (dir, _store) = new_store();
    let readers = readers(dir.path(), Duration::ZERO);
    for _ in 0..8 {
        let reading = readers.read(ReadKind::Scan, endless);
        let result = tokio::time::timeout(TIMEOUT, reading).await.unwrap();
        assert!(matches!(result, Err(ReadError::TimedOut(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_query_ends_when_its_caller_is_cancelled() {
    let (dir, _store) = new_store();
    let readers = readers(dir.path(), TIMEOUT);
    let started = Instant::now();
    for _ in 0..8 {
        let reading = readers.read(ReadKind::Scan, endless);
        assert!(tokio::time::timeout(Duration::from_millis(50), reading).await.is_err());
    }
    assert_eq!(readers.read(ReadKind::Scan, one).await.unwrap(), 1, "a connection is free again");
    assert!(started.elapsed() < TIMEOUT);
}

#[tokio::test]
async fn scans_do_not_delay_other_reads() {
    let (dir, _store) = new_store();
    let readers = Arc::new(readers(dir.path(), TIMEOUT));
    let scans: Vec<_> = (0..20)
        .map(|_| {
            let readers = Arc::clone(&readers);
            tokio::spawn(async move { readers.read(ReadKind::Scan, endless).await })
        })
        .collect();
    // Those that find no free connection are refused soon.
    let mut refused = 0;
    for (n, scan) in scans.into_iter().enumerate() {
        if n < 4 {
            continue;
        }
        let result = tokio::time::timeout(TIMEOUT / 2, scan).await.unwrap().unwrap();
        assert!(matches!(result, Err(ReadError::Overloaded(_))), "{result:?}");
        refused += 1;
        assert_eq!(readers.read(ReadKind::ById, one).await.unwrap(), 1);
        assert_eq!(readers.read(ReadKind::Range, one).await.unwrap(), 1);
    }
    assert_eq!(refused, 16);
}

/// An event whose metadata takes about a millisecond to match.
fn large_entry(n: u32) -> LogEntry {
    let mut entry = entry(n);
    let metadata = format!("{{\"a\":[{}0]}}", "{\"b\":1},".repeat(10_000));
    entry.metadata = Metadata::from_json(metadata).unwrap();
    entry
}

#[tokio::test]
async fn the_timeout_holds_while_rows_are_matched() {
    let (dir, store) = new_store();
    let repository = SqliteRepository::new(Arc::clone(&store));
    let entries: Vec<_> = (0..500).map(large_entry).collect();
    repository.store(&entries).await.unwrap();
    let filter = |n: u32| MetadataFilter::new("a.b", &format!("{n}x")).unwrap();
    let metadata = (0..16).map(filter).collect();
    let query = LogQuery { metadata, ..LogQuery::default() };
    let timeout = Duration::from_millis(20);
    let readers = readers(dir.path(), timeout);
    let started = Instant::now();
    let result =
        readers.read(ReadKind::Scan, move |file| super::find::find(file, &query, &Unlimited)).await;
    assert!(matches!(result, Err(ReadError::TimedOut(_))), "{result:?}");
    assert!(started.elapsed() < timeout + Duration::from_secs(1), "{:?}", started.elapsed());
}

/// Starts scans without a match, one after another, until it is aborted. Each takes
/// longer than the pause between two transactions.
fn scan_for_ever(repository: &SqliteRepository) -> tokio::task::JoinHandle<u64> {
    let repository = repository.clone();
    tokio::spawn(async move {
        let mut scans = 0;
        loop {
            let metadata = vec![MetadataFilter::new("a.b", "none such").unwrap()];
            let query = LogQuery { metadata, ..LogQuery::default() };
            match repository.find(&query, Arc::new(Unlimited)).await {
                Ok(page) => assert_eq!(page.entries, []),
                // On a busy machine, a scan can take longer than its limit.
                Err(ReadError::TimedOut(_)) => {}
                Err(error) => panic!("{error}"),
            }
            scans += 1;
            if scans == u64::MAX {
                return scans;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_bounded_under_overlapping_scans() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    let format = FileFormat { checkpoint_pages: 100, ..FORMAT };
    let store = SqliteStore::open_with(&data_dir, format).unwrap();
    let repository = SqliteRepository::new(store);
    let entries: Vec<_> = (0..100).map(large_entry).collect();
    repository.store(&entries).await.unwrap();
    let scans: Vec<_> = (0..4).map(|_| scan_for_ever(&repository)).collect();
    let log = dir.path().join(format!("{FILE}-wal"));
    let mut longest = 0;
    let limit = 2 * 100 * u64::from(PAGE_BYTES);
    let mut stored = 0;
    // Twenty times the limit.
    while stored < 20 * limit {
        let first = 1_000_000 + u32::try_from(stored).unwrap();
        let entries: Vec<_> = (first..first + 1000).map(entry).collect();
        repository.store(&entries).await.unwrap();
        stored += 1000 * 100;
        longest = longest.max(log.metadata().unwrap().len());
    }
    for scan in scans {
        assert!(!scan.is_finished(), "a scan failed");
        scan.abort();
    }
    println!("the log had up to {} KiB, the limit is {} KiB", longest >> 10, limit >> 10);
    assert!(longest < 4 * limit, "{longest}");
}

#[tokio::test]
async fn a_deleted_file_turns_the_store_down() {
    let (dir, store) = new_store();
    let repository = SqliteRepository::new(Arc::clone(&store));
    repository.store(&[entry(1)]).await.unwrap();
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    let started = Instant::now();
    let reason = loop {
        if let PartState::Down(reason) = repository.health().state {
            break reason;
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(reason.contains("store.db was deleted while the server was running"), "{reason}");
    let error = repository.store(&[entry(2)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Operator(_)), "{error}");
    assert!(!dir.path().join(FILE).exists(), "no empty file hides the loss");
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
