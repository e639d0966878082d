//! What every [`DeadLetters`] promises.

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::query::{Cursor, Order};
use eyego_log_server::domain::dead_letter::{
    DeadLetter, DeadLetterQuery, DeadLetterSummary, DeadLetters,
};

use super::{Case, at, id, run_cases};

/// Dead letters of which there are none yet.
#[async_trait]
pub(crate) trait DeadLettersFixture: Send + Sync + 'static {
    fn dead_letters(&self) -> Arc<dyn DeadLetters>;

    /// Closes the store and opens it again, as after a restart.
    async fn restart(&mut self);
}

type Fixture = Box<dyn DeadLettersFixture>;

/// Puts dead letters to the test; `fresh` makes new ones for each case.
pub(crate) async fn run<Fresh>(at_once: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, at_once, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("a letter comes back as it was", |f| Box::pin(a_letter_comes_back_as_it_was(f))),
    ("a second put merges", |f| Box::pin(a_second_put_merges(f))),
    ("concurrent puts of one letter are one letter", |f| {
        Box::pin(concurrent_puts_of_one_letter_are_one_letter(f))
    }),
    ("the list is ordered, filtered and paged", |f| {
        Box::pin(the_list_is_ordered_filtered_and_paged(f))
    }),
    ("remove and count", |f| Box::pin(remove_and_count(f))),
];

fn letter(n: u32, code: &str, failed_at: i64) -> DeadLetter {
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

async fn a_letter_comes_back_as_it_was(mut fixture: Fixture) {
    let letters = fixture.dead_letters();
    assert_eq!(letters.get(id(1)).await.unwrap(), None);
    let plain = letter(1, "unstorable", 2_000);
    let odd = DeadLetterSummary {
        truncated_from: Some(17_000_000),
        user_id: None,
        queued_at: at(-1),
        message: "line 1\nline \"2\" ü".to_owned(),
        ..summary(2, "mongodb_10334", 2_000)
    };
    let odd = DeadLetter { summary: odd, raw: Vec::new() };
    letters.put(&plain).await.unwrap();
    letters.put(&odd).await.unwrap();
    drop(letters);
    fixture.restart().await;
    let letters = fixture.dead_letters();
    assert_eq!(letters.get(id(1)).await.unwrap().as_ref(), Some(&plain));
    assert_eq!(letters.get(id(2)).await.unwrap().as_ref(), Some(&odd));
    let listed = letters.list(&DeadLetterQuery { limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(listed, [odd.summary, plain.summary]);
}

async fn a_second_put_merges(fixture: Fixture) {
    let letters = fixture.dead_letters();
    let mut first = letter(1, "mongodb_121", 2_000);
    first.summary.attempts = 5;
    letters.put(&first).await.unwrap();
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
    letters.put(&second).await.unwrap();
    let mut merged = first.clone();
    merged.summary.code = "unstorable".to_owned();
    merged.summary.message = "later".to_owned();
    merged.summary.failed_at = at(3_000);
    assert_eq!(letters.get(id(1)).await.unwrap(), Some(merged.clone()));

    second.summary.attempts = 6;
    merged.summary.attempts = 6;
    letters.put(&second).await.unwrap();
    let kept = letters.get(id(1)).await.unwrap();
    assert_eq!(kept, Some(merged), "the larger number of attempts");
    assert_eq!(letters.count(None).await.unwrap(), 1);
}

async fn concurrent_puts_of_one_letter_are_one_letter(fixture: Fixture) {
    let letters = fixture.dead_letters();
    let puts: Vec<_> = (1..=16)
        .map(|attempts| {
            let letters = Arc::clone(&letters);
            tokio::spawn(async move {
                let mut letter = letter(1, "unstorable", 2_000);
                letter.summary.attempts = attempts;
                letters.put(&letter).await
            })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    assert_eq!(letters.count(None).await.unwrap(), 1);
    assert_eq!(letters.get(id(1)).await.unwrap().unwrap().summary.attempts, 16);
}

async fn the_list_is_ordered_filtered_and_paged(fixture: Fixture) {
    let letters = fixture.dead_letters();
    // Times in threes, so that the id decides; put in no order.
    let all: Vec<_> = (0..30)
        .map(|n| {
            let code = if n % 2 == 0 { "even" } else { "odd" };
            letter(n, code, -5_000 + i64::from(n / 3) * 1_000)
        })
        .collect();
    for n in 0..30 {
        letters.put(&all[n * 7 % 30]).await.unwrap();
    }
    let newest_first: Vec<_> = all.iter().rev().map(|letter| letter.summary.clone()).collect();

    let every = DeadLetterQuery { limit: 100, ..Default::default() };
    assert_eq!(letters.list(&every).await.unwrap(), newest_first);

    let mut backwards = DeadLetterQuery { order: Order::Ascending, limit: 7, ..every };
    let mut oldest_first = Vec::new();
    loop {
        let page = letters.list(&backwards).await.unwrap();
        let Some(last) = page.last() else { break };
        backwards.after = Some(Cursor { timestamp: last.failed_at, id: last.id });
        oldest_first.extend(page);
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
            .filter(|letter| code.is_none_or(|code| letter.code == code))
            .filter(|letter| from.is_none_or(|from| letter.failed_at >= at(from)))
            .filter(|letter| to.is_none_or(|to| letter.failed_at < at(to)))
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
            let page = letters.list(&query).await.unwrap();
            assert!(page.len() <= 4);
            let Some(last) = page.last() else { break };
            query.after = Some(Cursor { timestamp: last.failed_at, id: last.id });
            found.extend(page);
        }
        assert_eq!(found, expected, "{query:?}");
    }
}

async fn remove_and_count(fixture: Fixture) {
    let letters = fixture.dead_letters();
    assert_eq!(letters.count(None).await.unwrap(), 0);
    for n in 0..5 {
        let code = if n % 2 == 0 { "even" } else { "odd" };
        letters.put(&letter(n, code, 0)).await.unwrap();
    }
    assert_eq!(letters.count(None).await.unwrap(), 5);
    assert_eq!(letters.count(Some("even")).await.unwrap(), 3);
    assert_eq!(letters.count(Some("none such")).await.unwrap(), 0);

    letters.remove(id(0)).await.unwrap();
    letters.remove(id(0)).await.unwrap();
    letters.remove(id(77)).await.unwrap();
    assert_eq!(letters.count(None).await.unwrap(), 4);
    assert_eq!(letters.get(id(0)).await.unwrap(), None);
    letters.put(&letter(0, "even", 0)).await.unwrap();
    assert_eq!(letters.count(None).await.unwrap(), 5, "it may come again");
}
