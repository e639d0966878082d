//! The promises of [`LogRepository`].

mod metadata;
mod query;
mod stats;
mod storing;

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogQuery};
use eyego_log_server::domain::read::Page;
use eyego_log_server::domain::repository::{LogRepository, StoreOutcome};

use super::{Case, run_cases, unlimited};

/// An empty store.
#[async_trait]
pub(crate) trait RepositoryFixture: Send + Sync + 'static {
    fn repository(&self) -> Arc<dyn LogRepository>;

    /// Closes the store and opens it again, like a restart.
    async fn restart(&mut self);

    /// Returns a log with this id that the store rejects.
    fn unstorable(&self, n: u32) -> LogEntry;
}

type Fixture = Box<dyn RepositoryFixture>;

/// Runs the suite; `fresh` makes a new store for each case.
pub(crate) async fn run<Fresh>(concurrency: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, concurrency, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("stored logs survive a restart", |store| {
        Box::pin(storing::stored_logs_survive_a_restart(store))
    }),
    ("an id is stored once", |store| Box::pin(storing::id_is_stored_once(store))),
    ("concurrent calls store an id once", |store| {
        Box::pin(storing::concurrent_calls_store_an_id_once(store))
    }),
    ("an equal log is a duplicate and a different one a conflict", |store| {
        Box::pin(storing::equal_log_is_a_duplicate_and_different_one_a_conflict(store))
    }),
    ("a rejected log does not affect its neighbours", |store| {
        Box::pin(storing::rejected_log_does_not_affect_its_neighbours(store))
    }),
    ("a large call is stored", |store| Box::pin(storing::large_call_is_stored(store))),
    ("unusual logs are returned unchanged", |store| {
        Box::pin(metadata::unusual_logs_are_returned_unchanged(store))
    }),
    ("any metadata is returned unchanged", |store| {
        Box::pin(metadata::any_metadata_is_returned_unchanged(store))
    }),
    ("metadata filters match as specified", |store| {
        Box::pin(metadata::metadata_filters_match_as_specified(store))
    }),
    ("an empty store returns an empty page", |store| {
        Box::pin(query::empty_store_returns_an_empty_page(store))
    }),
    ("pages by cursor return each log once, in order", |store| {
        Box::pin(query::pages_by_cursor_return_each_log_once_in_order(store))
    }),
    ("pages by number return each log once, in order", |store| {
        Box::pin(query::pages_by_number_return_each_log_once_in_order(store))
    }),
    ("a cursor keeps its position while logs are stored", |store| {
        Box::pin(query::cursor_keeps_its_position_while_logs_are_stored(store))
    }),
    ("long pages return each log once, in order", |store| {
        Box::pin(query::long_pages_return_each_log_once_in_order(store))
    }),
    ("a page is bounded by bytes", |store| Box::pin(query::page_is_bounded_by_bytes(store))),
    ("an event larger than a page is a page of its own", |store| {
        Box::pin(query::event_larger_than_a_page_is_a_page_of_its_own(store))
    }),
    ("a read without memory is refused", |store| {
        Box::pin(query::read_without_memory_is_refused(store))
    }),
    ("filters narrow alone and combined", |store| {
        Box::pin(query::filters_narrow_alone_and_combined(store))
    }),
    ("statistics count exactly the matching logs", |store| {
        Box::pin(stats::statistics_count_exactly_the_matching_logs(store))
    }),
    ("statistics of an empty range are zero", |store| {
        Box::pin(stats::statistics_of_an_empty_range_are_zero(store))
    }),
    ("statistics without memory are refused", |store| {
        Box::pin(stats::statistics_without_memory_are_refused(store))
    }),
];

async fn store(repository: &Arc<dyn LogRepository>, entries: &[LogEntry]) {
    let outcomes = repository.store(entries).await.unwrap();
    assert_eq!(outcomes, vec![StoreOutcome::Stored; entries.len()]);
}

async fn find(repository: &Arc<dyn LogRepository>, query: &LogQuery) -> Vec<LogEntry> {
    page(repository, query).await.entries
}

pub(super) async fn page(repository: &Arc<dyn LogRepository>, query: &LogQuery) -> Page {
    repository.find(query, unlimited()).await.unwrap()
}
