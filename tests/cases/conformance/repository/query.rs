//! The logs that a query returns, their order, and pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eyego_log_core::query::{MetadataFilter, Order, Start};
use eyego_log_core::{LogEntry, LogQuery};
use eyego_log_server::domain::read::{MAX_PAGE_BYTES, ReadError, ReadMemory};
use eyego_log_server::domain::repository::LogRepository;

use super::{Fixture, find, store};
use crate::conformance::{at, entry, id, unlimited};

/// Returns logs of two users with three actions. Each time, from before 1970 on, belongs to three
/// logs, and the ids are not in the order of the times.
fn logs() -> Vec<LogEntry> {
    (0..48)
        .map(|n| {
            let user = ["ada", "bob"][n as usize % 2];
            let action = ["LOGIN", "CLICK", "LOGOUT"][n as usize / 2 % 3];
            let millis = -8_000 + i64::from(n / 3) * 1_000;
            let metadata = format!(r#"{{"n": {}, "even": {}}}"#, n % 5, n % 2 == 0);
            entry(n * 29 % 48, user, action, millis, &metadata)
        })
        .collect()
}

pub(super) async fn filled(fixture: &Fixture) -> (Arc<dyn LogRepository>, Vec<LogEntry>) {
    let repository = fixture.repository();
    let logs = logs();
    // The order of storing differs from the order of the results.
    let (odd, even): (Vec<_>, Vec<_>) = logs.iter().cloned().partition(|log| log.id < id(24));
    store(&repository, &even).await;
    store(&repository, &odd).await;
    (repository, logs)
}

/// Returns what the query must find, all pages in one.
pub(super) fn expected(logs: &[LogEntry], query: &LogQuery) -> Vec<LogEntry> {
    let mut found: Vec<_> = logs
        .iter()
        .filter(|log| query.user_id.as_deref().is_none_or(|user| log.user_id.as_str() == user))
        .filter(|log| query.action.as_deref().is_none_or(|action| log.action.as_str() == action))
        .filter(|log| query.from.is_none_or(|from| log.timestamp >= from))
        .filter(|log| query.to.is_none_or(|to| log.timestamp < to))
        .filter(|log| {
            let metadata = log.metadata.to_map();
            query.metadata.iter().all(|filter| filter.matches(&metadata))
        })
        .cloned()
        .collect();
    found.sort_by_key(|log| (log.timestamp, log.id));
    if query.order == Order::Descending {
        found.reverse();
    }
    found
}

/// Follows the cursor to the end.
async fn all_pages(repository: &Arc<dyn LogRepository>, query: &LogQuery) -> Vec<LogEntry> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = repository.find(&query, unlimited()).await.unwrap();
        assert!(page.entries.len() <= query.limit as usize);
        found.extend(page.entries);
        let Some(next) = page.next else { return found };
        assert!(found.len() < 1_000, "the cursor never ends");
        query.start = Start::After(next);
    }
}

pub(super) async fn empty_store_returns_an_empty_page(fixture: Fixture) {
    let repository = fixture.repository();
    let page = repository.find(&LogQuery::default(), unlimited()).await.unwrap();
    assert!(page.entries.is_empty());
    assert_eq!(page.next, None);
    assert_eq!(repository.get(id(1)).await.unwrap(), None);
}

pub(super) async fn pages_by_cursor_return_each_log_once_in_order(fixture: Fixture) {
    let (repository, logs) = filled(&fixture).await;
    for order in [Order::Descending, Order::Ascending] {
        for user_id in [None, Some("ada".to_owned())] {
            // With 24 and 48 the last page is full, and nothing follows.
            for limit in [1, 5, 24, 48, 1_000] {
                let query =
                    LogQuery { order, limit, user_id: user_id.clone(), ..LogQuery::default() };
                let found = all_pages(&repository, &query).await;
                assert_eq!(found, expected(&logs, &query), "{query:?}");
            }
        }
    }
    let query = LogQuery { limit: 48, ..LogQuery::default() };
    assert_eq!(repository.find(&query, unlimited()).await.unwrap().next, None, "nothing follows");
}

pub(super) async fn pages_by_number_return_each_log_once_in_order(fixture: Fixture) {
    let (repository, logs) = filled(&fixture).await;
    let filter = MetadataFilter::new("even", "true").unwrap();
    for order in [Order::Descending, Order::Ascending] {
        for metadata in [vec![], vec![filter.clone()]] {
            let mut query = LogQuery { order, metadata, limit: 7, ..LogQuery::default() };
            let expected = expected(&logs, &query);
            let mut found = Vec::new();
            for page in 1..=8 {
                query.start = Start::Page(page);
                let page = repository.find(&query, unlimited()).await.unwrap();
                found.extend(page.entries);
                assert_eq!(page.next.is_some(), found.len() < expected.len());
            }
            assert_eq!(found, expected);
        }
    }
}

pub(super) async fn cursor_keeps_its_position_while_logs_are_stored(fixture: Fixture) {
    let (repository, logs) = filled(&fixture).await;
    let mut query = LogQuery { limit: 10, ..LogQuery::default() };
    let expected = expected(&logs, &query);
    let first = repository.find(&query, unlimited()).await.unwrap();
    // One is newer than all others, and one has the time of the page's last log.
    let last = first.entries.last().unwrap();
    let newer = entry(1_000, "eva", "LOGIN", 1_000_000, "{}");
    let mut beside = newer.clone();
    (beside.id, beside.timestamp) = (id(1_001), last.timestamp);
    store(&repository, &[newer, beside]).await;

    query.start = Start::After(first.next.unwrap());
    let second = repository.find(&query, unlimited()).await.unwrap();
    assert_eq!(first.entries, expected[..10]);
    assert_eq!(second.entries, expected[10..20]);
}

pub(super) async fn filters_narrow_alone_and_combined(fixture: Fixture) {
    let (repository, logs) = filled(&fixture).await;
    // Every combination of conditions.
    for combination in 0..64_u32 {
        let given = |bit: u32| combination & (1 << bit) != 0;
        let mut metadata = Vec::new();
        if given(4) {
            metadata.push(MetadataFilter::new("n", "3").unwrap());
        }
        if given(5) {
            metadata.push(MetadataFilter::new("even", "false").unwrap());
        }
        for order in [Order::Descending, Order::Ascending] {
            let query = LogQuery {
                user_id: given(0).then(|| "bob".to_owned()),
                action: given(1).then(|| "CLICK".to_owned()),
                // Times of logs: `from` is inclusive and `to` is exclusive.
                from: given(2).then(|| at(-4_000)),
                to: given(3).then(|| at(5_000)),
                metadata: metadata.clone(),
                limit: 3,
                order,
                ..LogQuery::default()
            };
            let found = all_pages(&repository, &query).await;
            assert_eq!(found, expected(&logs, &query), "{query:?}");
        }
    }
    for query in [
        LogQuery { user_id: Some("Ada".to_owned()), ..LogQuery::default() },
        LogQuery { user_id: Some("ad".to_owned()), ..LogQuery::default() },
        LogQuery { action: Some("' OR TRUE --".to_owned()), ..LogQuery::default() },
        LogQuery { from: Some(at(5_000)), to: Some(at(5_000)), ..LogQuery::default() },
    ] {
        assert!(find(&repository, &query).await.is_empty(), "{query:?}");
    }
}

/// Returns an event whose JSON has about this many bytes.
fn of_size(n: u32, bytes: usize) -> LogEntry {
    entry(n, "ada", "LOGIN", i64::from(n), &format!(r#"{{"a": "{}"}}"#, "x".repeat(bytes)))
}

pub(super) async fn long_pages_return_each_log_once_in_order(fixture: Fixture) {
    let repository = fixture.repository();
    // Stores may read a page in parts, whose sizes depend on those of the logs before.
    let size = |n| if (200..230).contains(&n) { 100 << 10 } else { 10 };
    let mut logs: Vec<_> = (0..500).map(|n| of_size(n, size(n))).collect();
    for (n, log) in (0..).zip(&mut logs) {
        log.timestamp = at(n / 3);
    }
    store(&repository, &logs).await;
    for order in [Order::Descending, Order::Ascending] {
        for limit in [32, 33, 240, 500] {
            let mut query = LogQuery { order, limit, ..LogQuery::default() };
            let found = all_pages(&repository, &query).await;
            assert!(found == expected(&logs, &query), "{query:?}");
            query.start = Start::Page(2);
            let second = repository.find(&query, unlimited()).await.unwrap();
            let skipped = limit as usize;
            let rest = (500 - skipped).min(skipped);
            assert!(second.entries == found[skipped..skipped + rest], "{query:?}");
        }
    }
}

pub(super) async fn page_is_bounded_by_bytes(fixture: Fixture) {
    const COUNT: u32 = 80;

    let repository = fixture.repository();
    let logs: Vec<_> = (0..COUNT).map(|n| of_size(n, 240 << 10)).collect();
    for bulk in logs.chunks(20) {
        store(&repository, bulk).await;
    }
    for metadata in [vec![], vec![MetadataFilter::new("b", "null").unwrap()]] {
        let is_filtered = !metadata.is_empty();
        let mut query =
            LogQuery { limit: 1_000, order: Order::Ascending, metadata, ..LogQuery::default() };
        let mut found = Vec::new();
        loop {
            let page = repository.find(&query, unlimited()).await.unwrap();
            let json = serde_json::to_vec(&page.entries).unwrap();
            // Brackets and commas belong to the envelope.
            assert!(json.len() <= MAX_PAGE_BYTES + 2 + page.entries.len(), "{}", json.len());
            let is_full = json.len() > MAX_PAGE_BYTES - (241 << 10);
            assert_eq!(is_full, page.next.is_some(), "{}", json.len());
            found.extend(page.entries);
            let Some(next) = page.next else { break };
            query.start = Start::After(next);
        }
        assert!(found == if is_filtered { vec![] } else { logs.clone() });
    }
}

pub(super) async fn event_larger_than_a_page_is_a_page_of_its_own(fixture: Fixture) {
    let repository = fixture.repository();
    let logs = [of_size(1, 10), of_size(2, MAX_PAGE_BYTES + 10), of_size(3, 10)];
    store(&repository, &logs).await;
    let query = LogQuery { limit: 1_000, order: Order::Ascending, ..LogQuery::default() };
    assert!(all_pages(&repository, &query).await == logs);
}

/// A limited amount of memory, never released.
pub(super) struct Limited(pub(super) AtomicUsize);

impl ReadMemory for Limited {
    fn reserve(&self, bytes: usize) -> Result<(), ReadError> {
        let left = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        left.map(drop).map_err(|_| ReadError::Overloaded("the test's memory is used up"))
    }
}

pub(super) async fn read_without_memory_is_refused(fixture: Fixture) {
    let repository = fixture.repository();
    let logs: Vec<_> = (0..20).map(|n| of_size(n, 10_000)).collect();
    store(&repository, &logs).await;
    let query = |limit| LogQuery { limit, ..LogQuery::default() };
    let memory = Arc::new(Limited(AtomicUsize::new(100_000)));
    let result = repository.find(&query(20), Arc::clone(&memory) as _).await;
    assert!(matches!(result, Err(ReadError::Overloaded(_))), "{result:?}");
    let memory = Arc::new(Limited(AtomicUsize::new(100_000)));
    let page = repository.find(&query(5), Arc::clone(&memory) as _).await.unwrap();
    let reserved = 100_000 - memory.0.load(Ordering::Relaxed);
    let json: usize =
        page.entries.iter().map(|entry| serde_json::to_vec(entry).unwrap().len()).sum();
    assert_eq!(reserved, json, "exactly what the response needs");
}
