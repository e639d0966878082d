//! What only this adapter promises; the rest is in the ports' suites.

use std::path::Path;
use std::time::{Duration, Instant};

use eyego_log_core::query::{MetadataFilter, Order, Start};
use eyego_log_core::{Action, LogEntry, LogId, LogQuery, Metadata, Timestamp, UserId};
use proptest::prelude::*;
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
    LogEntry::new(
        LogId::from_bytes(id),
        UserId::new("ada").unwrap(),
        Action::new("LOGIN").unwrap(),
        Timestamp::from_millis(i64::from(n)).unwrap(),
        Metadata::from_json(format!("{{\"n\":  {n}}}")).unwrap(),
    )
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
                for start in [Start::Page(1), Start::After((&entry(1)).into())] {
                    let query = LogQuery {
                        order,
                        user_id: user_id.clone(),
                        action: action.clone(),
                        from: Timestamp::from_millis(0),
                        ..base.clone()
                    };
                    let segment = user_id.is_some().then_some(0);
                    let (sql, _) = find::select(&query, start, segment);
                    let plan = plan(&connection, &sql);
                    assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
                    if user_id.is_some() {
                        let by_user =
                            "SEARCH logs USING INDEX logs_by_user (<expr>=? AND user_id=?";
                        assert!(plan.contains(by_user), "{plan}");
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

/// A store in memory, and all that is in it.
struct Modelled {
    connection: Connection,
    entries: Vec<LogEntry>,
}

impl Modelled {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(FORMAT.schema).unwrap();
        Self { connection, entries: Vec::new() }
    }

    fn store(&mut self, entries: Vec<LogEntry>) {
        let outcomes = logs::store(&self.connection, &entries).unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == StoreOutcome::Stored));
        self.entries.extend(entries);
    }

    /// The next log is the first of a segment, and of another one than the last.
    fn end_segment(&self) {
        let sql = "UPDATE logs SET seq = (seq | 65535) WHERE seq = (SELECT max(seq) FROM logs)";
        self.connection.execute(sql, []).unwrap();
    }

    /// What the query should find, in pages of its limit.
    fn expected(&self, query: &LogQuery) -> Vec<LogEntry> {
        let is_wanted = |entry: &LogEntry| {
            query.user_id.as_ref().is_none_or(|user_id| entry.user_id.as_str() == user_id)
                && query.action.as_ref().is_none_or(|action| entry.action.as_str() == action)
                && query.from.is_none_or(|from| entry.timestamp >= from)
                && query.to.is_none_or(|to| entry.timestamp < to)
                && query.metadata.iter().all(|filter| filter.matches(&entry.metadata.to_map()))
        };
        let mut wanted: Vec<_> = self.entries.iter().filter(|e| is_wanted(e)).cloned().collect();
        wanted.sort_by_key(|entry| (entry.timestamp, entry.id));
        if query.order == Order::Descending {
            wanted.reverse();
        }
        wanted
    }

    /// All pages, each begun at the cursor of the one before.
    fn by_cursor(&self, query: &LogQuery) -> Vec<LogEntry> {
        let mut query = query.clone();
        let mut found = Vec::new();
        loop {
            let page = find::find(&self.connection, &query).unwrap();
            assert!(page.entries.len() <= usize::try_from(query.limit).unwrap());
            found.extend(page.entries);
            let Some(next) = page.next else { return found };
            query.start = Start::After(next);
        }
    }

    /// All pages by their numbers.
    fn by_page(&self, query: &LogQuery) -> Vec<LogEntry> {
        let pages = (1..).map(|page| {
            let query = LogQuery { start: Start::Page(page), ..query.clone() };
            find::find(&self.connection, &query).unwrap().entries
        });
        pages.take_while(|entries| !entries.is_empty()).flatten().collect()
    }
}

/// Of few users, actions and times, so that there are many of each.
fn some_entries() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec((0_u8..2, 0_u8..2, 0_u8..12), 1..12)
}

fn some_query() -> impl Strategy<Value = LogQuery> {
    let of_two = |one: &'static str, two: &'static str| {
        prop::option::of(prop::sample::select(vec![one.to_owned(), two.to_owned()]))
    };
    let time = || prop::option::of((0_i64..12).prop_map(|ms| Timestamp::from_millis(ms).unwrap()));
    let filter = prop::option::of((0_u8..2).prop_map(|n| ("even", n.to_string())));
    let order = prop::sample::select(vec![Order::Ascending, Order::Descending]);
    let query = (of_two("0", "1"), of_two("0", "1"), time(), time(), filter, order, 1_u32..9);
    query.prop_map(|(user_id, action, from, to, filter, order, limit)| LogQuery {
        user_id,
        action,
        from,
        to,
        metadata: filter.iter().map(|(at, is)| MetadataFilter::new(at, is).unwrap()).collect(),
        limit,
        order,
        ..LogQuery::default()
    })
}

proptest! {
    /// However the logs lie in segments, and whatever their times there.
    #[test]
    fn a_query_finds_what_a_scan_would(
        bulks in prop::collection::vec((some_entries(), any::<bool>()), 1..8),
        queries in prop::collection::vec(some_query(), 8),
    ) {
        let mut store = Modelled::new();
        let mut number = 0;
        for (bulk, ends_segment) in bulks {
            let entries = bulk.into_iter().map(|(user, action, ms)| {
                number += 1;
                LogEntry::new(
                    entry(number).id,
                    UserId::new(user.to_string()).unwrap(),
                    Action::new(action.to_string()).unwrap(),
                    Timestamp::from_millis(ms.into()).unwrap(),
                    Metadata::from_json(format!("{{\"even\":{}}}", number % 2)).unwrap(),
                )
            });
            store.store(entries.collect());
            if ends_segment {
                store.end_segment();
            }
        }
        for query in queries {
            let expected = store.expected(&query);
            prop_assert_eq!(&store.by_cursor(&query), &expected, "by cursor: {:?}", query);
            prop_assert_eq!(&store.by_page(&query), &expected, "by page: {:?}", query);
        }
    }
}

#[test]
fn a_user_with_more_logs_than_are_read_at_a_time_is_found_whole() {
    let mut store = Modelled::new();
    for segment in 0..3 {
        store.store((segment * 700..(segment + 1) * 700).map(entry).collect());
        store.end_segment();
    }
    for order in [Order::Ascending, Order::Descending] {
        let query =
            LogQuery { user_id: Some("ada".to_owned()), limit: 1000, order, ..LogQuery::default() };
        let expected = store.expected(&query);
        assert_eq!(expected.len(), 2100);
        assert_eq!(store.by_cursor(&query), expected);
        assert_eq!(store.by_page(&query), expected);
    }
}

#[tokio::test]
async fn after_the_close_calls_are_answered() {
    let (dir, store) = fresh();
    let repository = SqliteRepository::new(Arc::clone(&store));
    repository.store(&[entry(1)]).await.unwrap();
    store.close(Instant::now() + PATIENCE).await;
    assert!(matches!(repository.store(&[entry(2)]).await, Err(StoreError::Transient(_))));
    assert!(matches!(repository.get(entry(1).id).await, Err(ReadError::Unavailable(_))));
    assert!(!repository.health().state.is_up());

    let store = SqliteStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    let repository = SqliteRepository::new(store);
    assert_eq!(repository.get(entry(1).id).await.unwrap(), Some(entry(1)));
}
