//! Queries, compared with a scan of all entries.

use eyego_log_core::query::{MetadataFilter, Order, Start};
use eyego_log_core::{Action, LogEntry, LogQuery, Metadata, Timestamp, UserId};
use proptest::prelude::*;
use rusqlite::Connection;

use super::super::find::find;
use super::super::readers::Snapshot;
use super::super::snapshot_gate::SnapshotGate;
use super::super::statement::{select, select_columns};
use super::super::tail;
use super::super::{FILE, FORMAT, repository};
use super::{Unlimited, entry, new_store};
use crate::domain::read::Page;
use crate::domain::repository::StoreOutcome;

#[tokio::test]
async fn every_query_reads_an_index_in_order() {
    let (dir, _store) = new_store();
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
                    let segment = (user_id.is_some() || action.is_some()).then_some(0);
                    let expected = match (&user_id, &action) {
                        (Some(_), _) => "INDEX logs_by_user (<expr>=? AND user_id=? AND timestamp",
                        (None, Some(_)) => {
                            "INDEX logs_by_action (<expr>=? AND action=? AND timestamp"
                        }
                        (None, None) => "INDEX logs_by_time (timestamp",
                    };
                    let (sql, _) = select(&query, start, segment);
                    let with_metadata = plan(&connection, &sql);
                    assert!(!with_metadata.contains("TEMP B-TREE"), "{sql}: {with_metadata}");
                    assert!(with_metadata.contains(expected), "{with_metadata}");
                    // No row is read for what is not returned or counted.
                    let query = LogQuery { metadata: Vec::new(), ..query };
                    let counted = ", action, NULL, user_id";
                    let (counting, _) = select_columns(&query, counted, start, segment);
                    for sql in [select(&query, start, segment).0, counting] {
                        let plan = plan(&connection, &sql);
                        let covering =
                            expected.replace("INDEX", "SEARCH logs USING COVERING INDEX");
                        assert!(plan.starts_with(&covering), "{sql}: {plan}");
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

/// A store in memory, and a list of all its entries.
struct ModelledStore {
    connection: Connection,
    entries: Vec<LogEntry>,
}

impl ModelledStore {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(FORMAT.schema).unwrap();
        connection.execute_batch(tail::TABLE).unwrap();
        Self { connection, entries: Vec::new() }
    }

    fn store(&mut self, entries: Vec<LogEntry>) {
        let outcomes = repository::store(&self.connection, &entries).unwrap().outcomes;
        assert!(outcomes.iter().all(|outcome| *outcome == StoreOutcome::Stored));
        self.entries.extend(entries);
    }

    /// Moves the last entry to the end of its segment, so that the next entry starts
    /// another one.
    fn end_segment(&self) {
        let sql = "UPDATE logs SET seq = (seq | 65535) WHERE seq = (SELECT max(seq) FROM logs)";
        self.connection.execute(sql, []).unwrap();
    }

    /// Returns the expected entries of all pages of the query.
    fn expected(&self, query: &LogQuery) -> Vec<LogEntry> {
        let matches = |entry: &LogEntry| {
            query.user_id.as_ref().is_none_or(|user_id| entry.user_id.as_str() == user_id)
                && query.action.as_ref().is_none_or(|action| entry.action.as_str() == action)
                && query.from.is_none_or(|from| entry.timestamp >= from)
                && query.to.is_none_or(|to| entry.timestamp < to)
                && query.metadata.iter().all(|filter| filter.matches(&entry.metadata.to_map()))
        };
        let mut expected: Vec<_> = self.entries.iter().filter(|e| matches(e)).cloned().collect();
        expected.sort_by_key(|entry| (entry.timestamp, entry.id));
        if query.order == Order::Descending {
            expected.reverse();
        }
        expected
    }

    fn find(&self, query: &LogQuery) -> Page {
        let gate = SnapshotGate::default();
        let mut snapshot = Snapshot::unlimited(&self.connection, &gate);
        let page = find(&mut snapshot, query, &Unlimited).unwrap();
        snapshot.end().unwrap();
        page
    }

    /// Reads all pages, each from the cursor of the page before.
    fn by_cursor(&self, query: &LogQuery) -> Vec<LogEntry> {
        let mut query = query.clone();
        let mut found = Vec::new();
        loop {
            let page = self.find(&query);
            assert!(page.entries.len() <= usize::try_from(query.limit).unwrap());
            found.extend(page.entries);
            let Some(next) = page.next else { return found };
            query.start = Start::After(next);
        }
    }

    /// Reads all pages by page number.
    fn by_page(&self, query: &LogQuery) -> Vec<LogEntry> {
        let pages = (1..).map(|page| {
            let query = LogQuery { start: Start::Page(page), ..query.clone() };
            self.find(&query).entries
        });
        pages.take_while(|entries| !entries.is_empty()).flatten().collect()
    }
}

/// Generates few users, actions and times, so that each occurs often.
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
    /// Entries with any times, in any distribution over segments.
    #[test]
    fn a_query_returns_the_same_entries_as_a_scan(
        bulks in prop::collection::vec((some_entries(), any::<bool>()), 1..8),
        queries in prop::collection::vec(some_query(), 8),
    ) {
        let mut store = ModelledStore::new();
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
fn a_query_by_user_returns_more_entries_than_are_read_at_a_time() {
    let mut store = ModelledStore::new();
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
