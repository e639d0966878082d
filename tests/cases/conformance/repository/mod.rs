//! What every [`LogRepository`] promises.

mod metadata;
mod query;
mod storing;

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogQuery};
use eyego_log_server::domain::repository::{LogRepository, StoreOutcome};

use super::{Case, run_cases};

/// An empty store.
#[async_trait]
pub(crate) trait RepositoryFixture: Send + Sync + 'static {
    fn repository(&self) -> Arc<dyn LogRepository>;

    /// Closes the store and opens it again, as after a restart.
    async fn restart(&mut self);

    /// A log that the store will not take, with this id, where there is one.
    fn unstorable(&self, _n: u32) -> Option<LogEntry> {
        None
    }
}

type Fixture = Box<dyn RepositoryFixture>;

/// Puts a store to the test; `fresh` makes a new one for each case.
pub(crate) async fn run<Fresh>(at_once: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, at_once, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("what is stored survives a restart", |f| {
        Box::pin(storing::what_is_stored_survives_a_restart(f))
    }),
    ("an id is stored once", |f| Box::pin(storing::an_id_is_stored_once(f))),
    ("concurrent calls store an id once", |f| {
        Box::pin(storing::concurrent_calls_store_an_id_once(f))
    }),
    ("a conflict is one of content", |f| Box::pin(storing::a_conflict_is_one_of_content(f))),
    ("a rejected entry leaves its neighbours", |f| {
        Box::pin(storing::a_rejected_entry_leaves_its_neighbours(f))
    }),
    ("a large call", |f| Box::pin(storing::a_large_call(f))),
    ("odd entries come back as they were", |f| {
        Box::pin(metadata::odd_entries_come_back_as_they_were(f))
    }),
    ("any metadata comes back as it was", |f| {
        Box::pin(metadata::any_metadata_comes_back_as_it_was(f))
    }),
    ("filters on metadata follow the rule", |f| {
        Box::pin(metadata::filters_on_metadata_follow_the_rule(f))
    }),
    ("an empty store answers", |f| Box::pin(query::an_empty_store_answers(f))),
    ("pages by cursor hold all, once, in order", |f| {
        Box::pin(query::pages_by_cursor_hold_all_once_in_order(f))
    }),
    ("pages by number hold all, once, in order", |f| {
        Box::pin(query::pages_by_number_hold_all_once_in_order(f))
    }),
    ("a cursor keeps its place while logs come", |f| {
        Box::pin(query::a_cursor_keeps_its_place_while_logs_come(f))
    }),
    ("each filter narrows, alone and with others", |f| {
        Box::pin(query::each_filter_narrows_alone_and_with_others(f))
    }),
];

async fn store(repository: &Arc<dyn LogRepository>, entries: &[LogEntry]) {
    let outcomes = repository.store(entries).await.unwrap();
    assert_eq!(outcomes, vec![StoreOutcome::Stored; entries.len()]);
}

async fn find(repository: &Arc<dyn LogRepository>, query: &LogQuery) -> Vec<LogEntry> {
    repository.find(query).await.unwrap().entries
}
