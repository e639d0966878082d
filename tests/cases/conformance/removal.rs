//! The promises of [`LogRemoval`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_core::query::Order;
use eyego_log_core::{LogEntry, LogId, LogQuery, Timestamp, UserId};
use eyego_log_server::domain::dead_letter::{DeadLetter, DeadLetterSummary, DeadLetters};
use eyego_log_server::domain::erasure::Erasures;
use eyego_log_server::domain::removal::{LogRemoval, Window};
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::domain::retention::Retention;

use super::{Case, at, entry, id, run_cases};

/// An empty store, with all ports that removal uses.
#[async_trait]
pub(crate) trait RemovalFixture: Send + Sync + 'static {
    fn repository(&self) -> Arc<dyn LogRepository>;

    fn dead_letters(&self) -> Arc<dyn DeadLetters>;

    fn removal(&self) -> Arc<dyn LogRemoval>;

    fn erasures(&self) -> Arc<dyn Erasures>;

    /// Closes the store and opens it again, like a restart.
    async fn restart(&mut self);
}

pub(super) type Fixture = Box<dyn RemovalFixture>;

/// Runs the suite; `fresh` makes a new store for each case.
pub(crate) async fn run<Fresh>(concurrency: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, concurrency, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("exactly the expired entries are deleted", |f| {
        Box::pin(exactly_the_expired_entries_are_deleted(f))
    }),
    ("only entries of the window are examined", |f| {
        Box::pin(only_entries_of_the_window_are_examined(f))
    }),
    ("a user's entries received before the cut-off are deleted", |f| {
        Box::pin(entries_of_a_user_received_before_the_cut_off_are_deleted(f))
    }),
    ("an entry without a time of receipt counts from its timestamp", |f| {
        Box::pin(entry_without_a_time_of_receipt_counts_from_its_timestamp(f))
    }),
    ("dead letters that may belong to a user are listed", |f| {
        Box::pin(dead_letters_of_a_user_are_listed(f))
    }),
    ("a deleted entry can be stored again", |f| Box::pin(deleted_entry_can_be_stored_again(f))),
];

const DAY: i64 = 24 * 60 * 60 * 1000;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

fn user(name: &str) -> UserId {
    UserId::from_stored(name).unwrap()
}

async fn all(repository: &Arc<dyn LogRepository>, query: LogQuery) -> Vec<LogEntry> {
    let mut query = LogQuery { order: Order::Ascending, limit: 1000, ..query };
    let mut entries = Vec::new();
    loop {
        let page = super::repository::page(repository, &query).await;
        entries.extend(page.entries);
        let Some(next) = page.next else { return entries };
        query.start = eyego_log_core::query::Start::After(next);
    }
}

fn sorted(mut entries: Vec<LogEntry>) -> Vec<LogEntry> {
    entries.sort_by_key(|entry| (entry.timestamp, entry.id));
    entries
}

/// Deletes what is expired before `before`, in small steps, and returns the number.
async fn delete_expired(
    removal: &Arc<dyn LogRemoval>,
    retention: &Retention,
    now: Timestamp,
    mut window: Window,
    limit: u32,
) -> u64 {
    let mut deleted = 0;
    loop {
        let examined = removal.delete_expired(retention, now, &window, limit).await.unwrap();
        assert!(examined.deleted <= u64::from(limit));
        deleted += examined.deleted;
        match examined.next {
            Some(next) => {
                assert!(window.after.is_none_or(|after| {
                    (after.timestamp, after.id) < (next.timestamp, next.id)
                }));
                window.after = Some(next);
            }
            None => return deleted,
        }
    }
}

async fn exactly_the_expired_entries_are_deleted(fixture: Fixture) {
    const COUNT: u32 = 3_000;

    let (repository, removal) = (fixture.repository(), fixture.removal());
    assert_eq!(removal.oldest().await.unwrap(), None);
    let now = at(1_000 * DAY);
    let retention = Retention::new(
        Some(days(30)),
        [("PAGE_VIEW".to_owned(), days(7)), ("LOGIN".to_owned(), days(365))],
    );
    let actions = ["PAGE_VIEW", "LOGIN", "OTHER", "ÄNDERN"];
    let entries: Vec<_> = (0..COUNT)
        .map(|n| {
            // From 400 days ago until tomorrow, and some exactly at a limit.
            let age = match n % 10 {
                0 => 30 * DAY,
                1 => 30 * DAY + 1,
                2 => 7 * DAY,
                _ => i64::from(n * 7_919 % 401_000) * DAY / 1000 - DAY,
            };
            let action = actions[(n / 10) as usize % actions.len()];
            entry(n, &format!("user-{}", n % 50), action, 1_000 * DAY - age, "{}")
        })
        .collect();
    for chunk in entries.chunks(1000) {
        repository.store(chunk).await.unwrap();
    }
    let kept: Vec<_> = entries
        .iter()
        .filter(|entry| !retention.is_expired(entry.action.as_str(), entry.timestamp, now))
        .cloned()
        .collect();
    let expired = u64::from(COUNT) - kept.len() as u64;
    assert!(expired > 500 && kept.len() > 500, "{expired} expired");

    let window = Window { action: None, after: None, before: at(993 * DAY) };
    let of_action = Window { action: Some("PAGE_VIEW".to_owned()), ..window.clone() };
    let deleted = delete_expired(&removal, &retention, now, of_action, 250).await;
    let of_action = entries.iter().filter(|entry| entry.action.as_str() == "PAGE_VIEW");
    let expired_of_action = of_action
        .filter(|entry| retention.is_expired("PAGE_VIEW", entry.timestamp, now))
        .count() as u64;
    assert!(deleted >= expired_of_action, "{deleted} of {expired_of_action}");
    let deleted = deleted + delete_expired(&removal, &retention, now, window.clone(), 250).await;
    assert_eq!(deleted, expired);
    let kept = sorted(kept);
    assert_eq!(all(&repository, LogQuery::default()).await, kept);
    assert_eq!(removal.oldest().await.unwrap(), Some(kept[0].timestamp));
    assert_eq!(delete_expired(&removal, &retention, now, window, 1000).await, 0, "nothing is left");

    // Queries by user do not depend on the time index.
    let query = LogQuery { user_id: Some("user-7".to_owned()), ..LogQuery::default() };
    let of_user: Vec<_> =
        kept.into_iter().filter(|entry| entry.user_id.as_str() == "user-7").collect();
    assert!(!of_user.is_empty());
    assert_eq!(all(&repository, query).await, of_user);
}

async fn only_entries_of_the_window_are_examined(fixture: Fixture) {
    let (repository, removal) = (fixture.repository(), fixture.removal());
    let entries: Vec<_> = (0..10).map(|n| entry(n, "ada", "A", i64::from(n), "{}")).collect();
    repository.store(&entries).await.unwrap();
    let retention = Retention::new(Some(days(1)), []);
    let after = Some((&entries[3]).into());
    let window = Window { action: None, after, before: at(7) };
    assert_eq!(delete_expired(&removal, &retention, at(9 * DAY), window, 2).await, 3);
    let left: Vec<_> =
        entries.into_iter().enumerate().filter(|(n, _)| *n < 4 || *n > 6).map(|(_, e)| e).collect();
    assert_eq!(all(&repository, LogQuery::default()).await, left);
}

async fn entries_of_a_user_received_before_the_cut_off_are_deleted(fixture: Fixture) {
    let (repository, removal) = (fixture.repository(), fixture.removal());
    let received = |n: u32, name: &str, received_at: i64| {
        let mut entry = entry(n, name, "A", 5_000 - i64::from(n), "{}");
        entry.received_at = Some(at(received_at));
        entry
    };
    let names = ["ada", "Ada", "ada ", "bob"];
    let entries: Vec<_> =
        (0..400).map(|n| received(n, names[n as usize % 4], 1_000 + i64::from(n / 4))).collect();
    repository.store(&entries).await.unwrap();
    assert_eq!(removal.delete_of_user(&user("nobody"), at(9_000), 100).await.unwrap(), 0);

    let mut steps = Vec::new();
    loop {
        let deleted = removal.delete_of_user(&user("ada"), at(1_060), 25).await.unwrap();
        steps.push(deleted);
        if deleted == 0 {
            break;
        }
    }
    assert_eq!(steps, [25, 25, 10, 0]);
    let is_kept =
        |entry: &LogEntry| entry.user_id.as_str() != "ada" || entry.received_at >= Some(at(1_060));
    let kept = sorted(entries.into_iter().filter(is_kept).collect());
    assert_eq!(all(&repository, LogQuery::default()).await, kept);
}

async fn entry_without_a_time_of_receipt_counts_from_its_timestamp(fixture: Fixture) {
    let (repository, removal) = (fixture.repository(), fixture.removal());
    // Ids start with the time of creation in MongoDB, which here is later than both.
    let entries: Vec<_> = [1_000, 2_000]
        .into_iter()
        .zip(0..)
        .map(|(millis, n)| {
            let mut entry = entry(n, "ada", "A", millis, "{}");
            entry.received_at = None;
            entry
        })
        .collect();
    repository.store(&entries).await.unwrap();
    assert_eq!(removal.delete_of_user(&user("ada"), at(1_500), 10).await.unwrap(), 1);
    assert_eq!(all(&repository, LogQuery::default()).await, entries[1..]);
}

async fn dead_letters_of_a_user_are_listed(fixture: Fixture) {
    let (dead_letters, removal) = (fixture.dead_letters(), fixture.removal());
    let users = [Some("ada"), None, Some("bob")];
    for n in 0..9 {
        let summary = DeadLetterSummary {
            id: id(n),
            truncated_from: None,
            user_id: users[n as usize % 3].map(str::to_owned),
            topic: "t".to_owned(),
            partition: 0,
            offset: 0,
            queued_at: at(0),
            code: "c".to_owned(),
            message: "m".to_owned(),
            attempts: 1,
            failed_at: at(0),
        };
        dead_letters.put(&DeadLetter { summary, raw: b"x".to_vec() }).await.unwrap();
    }
    let listed = async |after: Option<LogId>, limit| {
        removal.dead_letters_of_user(&user("ada"), after, limit).await.unwrap()
    };
    assert_eq!(listed(None, 2).await, [0, 3].map(id));
    assert_eq!(listed(Some(id(3)), 2).await, [6].map(id));
    assert!(listed(Some(id(6)), 2).await.is_empty());
}

async fn deleted_entry_can_be_stored_again(fixture: Fixture) {
    let (repository, removal) = (fixture.repository(), fixture.removal());
    let mut first = entry(1, "ada", "A", 5, "{}");
    first.received_at = Some(at(5));
    repository.store(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(removal.delete_of_user(&user("ada"), at(6), 10).await.unwrap(), 1);
    removal.purge().await.unwrap();
    let mut later = entry(1, "ada", "B", 7, "{}");
    later.received_at = Some(at(7));
    repository.store(std::slice::from_ref(&later)).await.unwrap();
    assert_eq!(repository.get(id(1)).await.unwrap(), Some(later));
}
