//! What only this adapter promises; the rest is in the ports' suites.

use std::path::Path;
use std::time::{Duration, Instant};

use eyego_log_core::query::{MetadataFilter, Order};
use eyego_log_core::{Action, LogEntry, LogId, LogQuery, Metadata, Timestamp, UserId};
use tempfile::TempDir;

use super::*;
use crate::domain::repository::{LogRepository, StoreOutcome};

const PATIENCE: Duration = Duration::from_secs(20);

fn fresh() -> (TempDir, Arc<SqliteStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    (dir, store)
}

fn entry(n: u32) -> LogEntry {
    let mut id = [0; 12];
    id[8..].copy_from_slice(&n.to_be_bytes());
    LogEntry {
        id: LogId::from_bytes(id),
        user_id: UserId::new("ada").unwrap(),
        action: Action::new("LOGIN").unwrap(),
        timestamp: Timestamp::from_millis(i64::from(n)).unwrap(),
        metadata: Metadata::from_json(format!("{{\"n\":  {n}}}")).unwrap(),
        received_at: None,
    }
}

#[tokio::test]
async fn metadata_comes_back_to_the_byte() {
    let (_dir, store) = fresh();
    let repository = SqliteRepository::new(store);
    repository.store(&[entry(7)]).await.unwrap();
    let stored = repository.get(entry(7).id).await.unwrap().unwrap();
    assert_eq!(stored.metadata.as_json(), "{\"n\":  7}");
}

#[tokio::test]
async fn a_locked_file_is_transient_and_mends_itself() {
    let (dir, store) = fresh();
    let repository = SqliteRepository::new(store);
    repository.store(&[entry(1)]).await.unwrap();
    let locked = Connection::open(dir.path().join(FILE)).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = repository.store(&[entry(2)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Transient(_)), "{error}");
    assert!(matches!(repository.health().state, PartState::Down(_)));
    assert!(repository.get(entry(1).id).await.unwrap().is_some(), "reading goes on");

    drop(locked);
    let outcomes = repository.store(&[entry(1), entry(2)]).await.unwrap();
    let same = StoreOutcome::Duplicate { conflicting: false };
    assert_eq!(outcomes, [same, StoreOutcome::Stored]);
    assert!(repository.health().state.is_up());
}

#[test]
fn what_somebody_has_to_mend_is_the_operators() {
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
async fn a_slow_query_is_given_up() {
    let (dir, _store) = fresh();
    let readers = readers(dir.path(), Duration::from_millis(50));
    for _ in 0..8 {
        let error = readers.read(endless).await.unwrap_err();
        assert!(matches!(&error, ReadError::Unavailable(why) if why.contains("took longer")));
    }
    let readers = self::readers(dir.path(), PATIENCE);
    assert_eq!(readers.read(one).await.unwrap(), 1);
}

#[tokio::test]
async fn a_query_is_given_up_also_before_it_begins() {
    let (dir, _store) = fresh();
    let readers = readers(dir.path(), Duration::ZERO);
    for _ in 0..8 {
        let given_up = tokio::time::timeout(PATIENCE, readers.read(endless)).await.unwrap();
        assert!(matches!(given_up, Err(ReadError::Unavailable(_))), "{given_up:?}");
    }
}

#[tokio::test]
async fn a_query_whose_caller_has_gone_ends() {
    let (dir, _store) = fresh();
    let readers = readers(dir.path(), PATIENCE);
    let begun = Instant::now();
    for _ in 0..8 {
        let waited = tokio::time::timeout(Duration::from_millis(50), readers.read(endless)).await;
        assert!(waited.is_err());
    }
    assert_eq!(readers.read(one).await.unwrap(), 1, "there are connections again");
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn no_query_sorts() {
    let (dir, _store) = fresh();
    let connection = Connection::open(dir.path().join(FILE)).unwrap();
    let base =
        LogQuery { metadata: vec![MetadataFilter::new("n", "1").unwrap()], ..LogQuery::default() };
    for order in [Order::Descending, Order::Ascending] {
        for user_id in [None, Some("ada".to_owned())] {
            for action in [None, Some("LOGIN".to_owned())] {
                for start in [
                    eyego_log_core::query::Start::Page(1),
                    eyego_log_core::query::Start::After((&entry(1)).into()),
                ] {
                    let query = LogQuery {
                        order,
                        user_id: user_id.clone(),
                        action: action.clone(),
                        from: Timestamp::from_millis(0),
                        start,
                        ..base.clone()
                    };
                    let (sql, _) = find::select(&query);
                    let plan = plan(&connection, &sql);
                    assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
                    if user_id.is_some() {
                        assert!(plan.contains("SEARCH logs USING INDEX logs_by_user"), "{plan}");
                    }
                }
            }
        }
    }
}

fn plan(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut plan = String::new();
    while let Some(row) = rows.next().unwrap() {
        plan += &row.get::<_, String>(3).unwrap();
        plan += "; ";
    }
    plan
}

#[tokio::test]
async fn after_the_close_calls_are_answered() {
    let (dir, store) = fresh();
    let repository = SqliteRepository::new(Arc::clone(&store));
    repository.store(&[entry(1)]).await.unwrap();
    store.close(tokio::time::Instant::now() + PATIENCE).await;
    assert!(matches!(repository.store(&[entry(2)]).await, Err(StoreError::Transient(_))));
    assert!(matches!(repository.get(entry(1).id).await, Err(ReadError::Unavailable(_))));
    assert!(!repository.health().state.is_up());

    let store = SqliteStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    let repository = SqliteRepository::new(store);
    assert_eq!(repository.get(entry(1).id).await.unwrap(), Some(entry(1)));
}
