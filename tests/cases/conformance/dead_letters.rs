//! The promises of [`DeadLetters`].

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::query::Order;
use eyego_log_server::domain::dead_letter::{
    DeadLetter, DeadLetterQuery, DeadLetterSummary, DeadLetters, MAX_TEXT_BYTES,
};
use eyego_log_server::domain::read::{MAX_PAGE_BYTES, Page};

use super::{Case, at, id, run_cases, unlimited};

/// An empty store of dead letters.
#[async_trait]
pub(crate) trait DeadLettersFixture: Send + Sync + 'static {
    fn dead_letters(&self) -> Arc<dyn DeadLetters>;

    /// Closes the store and opens it again, like a restart.
    async fn restart(&mut self);
}

type Fixture = Box<dyn DeadLettersFixture>;

/// Runs the suite; `fresh` makes a new store for each case.
pub(crate) async fn run<Fresh>(concurrency: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, concurrency, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("a dead letter is returned unchanged", |f| Box::pin(dead_letter_is_returned_unchanged(f))),
    ("a second put merges", |f| Box::pin(second_put_merges(f))),
    ("concurrent puts of a dead letter merge", |f| {
        Box::pin(concurrent_puts_of_a_dead_letter_merge(f))
    }),
    ("the list is ordered, filtered and paged", |f| {
        Box::pin(list_is_ordered_filtered_and_paged(f))
    }),
    ("a page is bounded by bytes", |f| Box::pin(page_is_bounded_by_bytes(f))),
    ("remove and count", |f| Box::pin(remove_and_count(f))),
];

async fn list(store: &Arc<dyn DeadLetters>, query: &DeadLetterQuery) -> Page<DeadLetterSummary> {
    store.list(query, unlimited()).await.unwrap()
}

fn dead_letter(n: u32, code: &str, failed_at: i64) -> DeadLetter {
    let raw = b"{\"userId\": \"\xff\xfe\0\"}".to_vec();
    DeadLetter { summary: summary(n, code, failed_at), raw }
}

fn summary(n: u32, code: &str, failed_at: i64) -> DeadLetterSummary {
    DeadLetterSummary {
        id: id(n),
        truncated_from: None,
        user_id: Some("ada".to_owned()),
        topic: "logs-topic".to_owned(),
        partition: 3,
        offset: i64::from(n) + 5_000_000_000,
        queued_at: at(1_000),
        code: code.to_owned(),
        message: "userId must be a non-empty string".to_owned(),
        attempts: 1,
        failed_at: at(failed_at),
    }
}

async fn dead_letter_is_returned_unchanged(mut fixture: Fixture) {
    let store = fixture.dead_letters();
    assert_eq!(store.get(id(1)).await.unwrap(), None);
    let plain = dead_letter(1, "unstorable", 2_000);
    let odd = DeadLetterSummary {
        truncated_from: Some(17_000_000),
        user_id: None,
        queued_at: at(-1),
        message: "line 1\nline \"2\" ü".to_owned(),
        ..summary(2, "mongodb_10334", 2_000)
    };
    let odd = DeadLetter { summary: odd, raw: Vec::new() };
    store.put(&plain).await.unwrap();
    store.put(&odd).await.unwrap();
    drop(store);
    fixture.restart().await;
    let store = fixture.dead_letters();
    assert_eq!(store.get(id(1)).await.unwrap().as_ref(), Some(&plain));
    assert_eq!(store.get(id(2)).await.unwrap().as_ref(), Some(&odd));
    let listed = list(&store, &DeadLetterQuery { limit: 10, ..Default::default() }).await.entries;
    assert_eq!(listed, [odd.summary, plain.summary]);
}

async fn second_put_merges(fixture: Fixture) {
    let store = fixture.dead_letters();
    let mut first = dead_letter(1, "mongodb_121", 2_000);
    first.summary.attempts = 5;
    store.put(&first).await.unwrap();
    let second = DeadLetterSummary {
        truncated_from: Some(1),
        user_id: None,
        topic: "other".to_owned(),
        partition: 9,
        offset: 9,
        queued_at: at(9),
        code: "unstorable".to_owned(),
        message: "later".to_owned(),
        attempts: 2,
        failed_at: at(3_000),
        ..first.summary.clone()
    };
    let mut second = DeadLetter { summary: second, raw: b"other".to_vec() };
    store.put(&second).await.unwrap();
    let mut merged = first.clone();
    merged.summary.code = "unstorable".to_owned();
    merged.summary.message = "later".to_owned();
    merged.summary.failed_at = at(3_000);
    assert_eq!(store.get(id(1)).await.unwrap(), Some(merged.clone()));

    second.summary.attempts = 6;
    merged.summary.attempts = 6;
    store.put(&second).await.unwrap();
    let kept = store.get(id(1)).await.unwrap();
    assert_eq!(kept, Some(merged), "the larger number of attempts is kept");
    assert_eq!(store.count(None).await.unwrap(), 1);
}

async fn concurrent_puts_of_a_dead_letter_merge(fixture: Fixture) {
    let store = fixture.dead_letters();
    let puts: Vec<_> = (1..=16)
        .map(|attempts| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut dead_letter = dead_letter(1, "unstorable", 2_000);
                dead_letter.summary.attempts = attempts;
                store.put(&dead_letter).await
            })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    assert_eq!(store.count(None).await.unwrap(), 1);
    assert_eq!(store.get(id(1)).await.unwrap().unwrap().summary.attempts, 16);
}

async fn list_is_ordered_filtered_and_paged(fixture: Fixture) {
    let store = fixture.dead_letters();
    // Three share a time, so that the id decides. They are put in a mixed order.
    let all: Vec<_> = (0..30)
        .map(|n| {
            let code = if n % 2 == 0 { "even" } else { "odd" };
            dead_letter(n, code, -5_000 + i64::from(n / 3) * 1_000)
        })
        .collect();
    for n in 0..30 {
        store.put(&all[n * 7 % 30]).await.unwrap();
    }
    let newest_first: Vec<_> =
        all.iter().rev().map(|dead_letter| dead_letter.summary.clone()).collect();

    let every = DeadLetterQuery { limit: 100, ..Default::default() };
    assert_eq!(list(&store, &every).await.entries, newest_first);

    let mut backwards = DeadLetterQuery { order: Order::Ascending, limit: 7, ..every };
    let mut oldest_first = Vec::new();
    loop {
        let page = list(&store, &backwards).await;
        oldest_first.extend(page.entries);
        let Some(next) = page.next else { break };
        backwards.after = Some(next);
    }
    oldest_first.reverse();
    assert_eq!(oldest_first, newest_first);

    for (code, from, to) in [
        (None, Some(-3_000), None),
        (None, None, Some(-3_000)),
        (None, Some(-3_000), Some(1_000)),
        (Some("odd"), None, None),
        (Some("odd"), Some(-3_000), Some(1_000)),
        (Some("none such"), None, None),
    ] {
        let expected: Vec<_> = newest_first
            .iter()
            .filter(|summary| code.is_none_or(|code| summary.code == code))
            .filter(|summary| from.is_none_or(|from| summary.failed_at >= at(from)))
            .filter(|summary| to.is_none_or(|to| summary.failed_at < at(to)))
            .cloned()
            .collect();
        let mut query = DeadLetterQuery {
            code: code.map(str::to_owned),
            from: from.map(at),
            to: to.map(at),
            after: None,
            order: Order::Descending,
            limit: 4,
        };
        let mut found = Vec::new();
        loop {
            let page = list(&store, &query).await;
            assert!(page.entries.len() <= 4);
            found.extend(page.entries);
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        assert_eq!(found, expected, "{query:?}");
    }
}

async fn page_is_bounded_by_bytes(fixture: Fixture) {
    const COUNT: u32 = 200;

    let store = fixture.dead_letters();
    for n in 0..COUNT {
        let mut large = dead_letter(n, "unstorable", i64::from(n));
        large.summary.message = "\u{1}".repeat(MAX_TEXT_BYTES + 1);
        large.raw = vec![b'x'; 100 << 10];
        store.put(&large).await.unwrap();
    }
    let mut query =
        DeadLetterQuery { limit: 1000, order: Order::Ascending, ..DeadLetterQuery::default() };
    let mut found = Vec::new();
    loop {
        let page = list(&store, &query).await;
        // A control character has six bytes as JSON.
        let bytes: usize = page.entries.iter().map(|entry| 6 * entry.message.len()).sum();
        assert!(bytes <= MAX_PAGE_BYTES, "{bytes}");
        found.extend(page.entries);
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    let ids: Vec<_> = found.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, (0..COUNT).map(id).collect::<Vec<_>>());
    assert!(found.iter().all(|entry| entry.message.len() == MAX_TEXT_BYTES), "texts are cut");
}

async fn remove_and_count(fixture: Fixture) {
    let store = fixture.dead_letters();
    assert_eq!(store.count(None).await.unwrap(), 0);
    for n in 0..5 {
        let code = if n % 2 == 0 { "even" } else { "odd" };
        store.put(&dead_letter(n, code, 0)).await.unwrap();
    }
    assert_eq!(store.count(None).await.unwrap(), 5);
    assert_eq!(store.count(Some("even")).await.unwrap(), 3);
    assert_eq!(store.count(Some("none such")).await.unwrap(), 0);

    store.remove(id(0)).await.unwrap();
    store.remove(id(0)).await.unwrap();
    store.remove(id(77)).await.unwrap();
    assert_eq!(store.count(None).await.unwrap(), 4);
    assert_eq!(store.get(id(0)).await.unwrap(), None);
    store.put(&dead_letter(0, "even", 0)).await.unwrap();
    assert_eq!(store.count(None).await.unwrap(), 5, "it can be put again");
}
