//! The promises of [`Erasures`].
//!
//! [`Erasures`]: eyego_log_server::domain::erasure::Erasures

use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, LogIdGenerator, UserId};
use eyego_log_server::domain::erasure::{Erasure, ErasureQuery, Removed};

use super::removal::Fixture;
use super::{Case, at, id, run_cases};

/// Runs the suite; `fresh` makes a new store for each case.
pub(crate) async fn run<Fresh>(concurrency: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, concurrency, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("an erasure is returned unchanged", |f| Box::pin(erasure_is_returned_unchanged(f))),
    ("the latest cut-off of a user counts", |f| Box::pin(latest_cut_off_of_a_user_counts(f))),
    ("the list is ordered, filtered and paged", |f| {
        Box::pin(list_is_ordered_filtered_and_paged(f))
    }),
    ("progress is added and completion is final", |f| {
        Box::pin(progress_is_added_and_completion_is_final(f))
    }),
    ("a lease is renewed by its holder", |f| Box::pin(lease_is_renewed_by_its_holder(f))),
];

fn user(name: &str) -> UserId {
    UserId::from_stored(name).unwrap()
}

fn erasure(n: u32, name: &str, requested_at: i64) -> Erasure {
    Erasure {
        id: id(n),
        user_id: user(name),
        requested_at: at(requested_at),
        removed: Removed::default(),
        completed_at: None,
    }
}

async fn erasure_is_returned_unchanged(mut fixture: Fixture) {
    let erasures = fixture.erasures();
    assert_eq!(erasures.get(id(1)).await.unwrap(), None);
    assert!(erasures.cut_offs().await.unwrap().is_empty());
    let odd = erasure(1, "$where/ü \"\u{1}\u{1f980}", 1_768_435_085_442);
    erasures.record(&odd).await.unwrap();
    erasures.record(&erasure(1, "other", 9)).await.unwrap();
    drop(erasures);
    fixture.restart().await;
    let erasures = fixture.erasures();
    assert_eq!(erasures.get(id(1)).await.unwrap(), Some(odd), "the first record stays");
}

async fn latest_cut_off_of_a_user_counts(fixture: Fixture) {
    let erasures = fixture.erasures();
    for (n, name, requested_at) in [(1, "ada", 10), (2, "ada", 30), (3, "ada", 20), (4, "bob", 5)] {
        erasures.record(&erasure(n, name, requested_at)).await.unwrap();
    }
    erasures.complete(id(2), at(40)).await.unwrap();
    let cut_offs = erasures.cut_offs().await.unwrap();
    assert!(cut_offs.cover(&user("ada"), at(29)));
    assert!(!cut_offs.cover(&user("ada"), at(30)));
    assert!(cut_offs.cover(&user("bob"), at(4)));
    assert!(!cut_offs.cover(&user("carol"), at(0)));
}

async fn list_is_ordered_filtered_and_paged(fixture: Fixture) {
    let erasures = fixture.erasures();
    // Three share a time, so that the id decides.
    let all: Vec<_> = (0..9).map(|n| erasure(n, "ada", i64::from(n / 3))).collect();
    for n in 0..9 {
        erasures.record(&all[n * 4 % 9]).await.unwrap();
    }
    let mut query = ErasureQuery { limit: 4, ..ErasureQuery::default() };
    let mut found = Vec::new();
    loop {
        let page = erasures.list(&query).await.unwrap();
        assert!(page.len() <= 4);
        let Some(last) = page.last() else { break };
        query.after = Some(Cursor { timestamp: last.requested_at, id: last.id });
        found.extend(page);
    }
    found.reverse();
    assert_eq!(found, all);

    for n in 0..7 {
        erasures.complete(id(n), at(100)).await.unwrap();
    }
    let running = ErasureQuery { only_running: true, limit: 9, after: None };
    let running = erasures.list(&running).await.unwrap();
    assert_eq!(running, [all[8].clone(), all[7].clone()]);
}

async fn progress_is_added_and_completion_is_final(mut fixture: Fixture) {
    let erasures = fixture.erasures();
    erasures.record(&erasure(1, "ada", 10)).await.unwrap();
    erasures.record(&erasure(2, "bob", 10)).await.unwrap();
    for removed in
        [Removed { store: 1000, dead_letters: 0 }, Removed { store: 234, dead_letters: 1 }]
    {
        erasures.add_removed(id(1), removed).await.unwrap();
    }
    erasures.complete(id(1), at(50)).await.unwrap();
    erasures.complete(id(1), at(60)).await.unwrap();
    fixture.restart().await;
    let erasures = fixture.erasures();
    let done = Erasure {
        removed: Removed { store: 1234, dead_letters: 1 },
        completed_at: Some(at(50)),
        ..erasure(1, "ada", 10)
    };
    assert_eq!(erasures.get(id(1)).await.unwrap(), Some(done));
    assert_eq!(erasures.get(id(2)).await.unwrap(), Some(erasure(2, "bob", 10)));
}

async fn lease_is_renewed_by_its_holder(fixture: Fixture) {
    let erasures = fixture.erasures();
    let holder: LogId = LogIdGenerator::new().generate(at(0));
    // The first call may only create the lease.
    let first = erasures.acquire_lease(holder).await.unwrap();
    assert!(first || erasures.acquire_lease(holder).await.unwrap());
    assert!(erasures.acquire_lease(holder).await.unwrap());
}
