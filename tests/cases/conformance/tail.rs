//! The promises of [`LogTail`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_core::query::MetadataFilter;
use eyego_log_core::{LogEntry, LogId, LogQuery};
use eyego_log_server::domain::removal::LogRemoval;
use eyego_log_server::domain::repository::{LogRepository, StoreOutcome};
use eyego_log_server::domain::tail::{
    LogTail, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Tail, TailError, TailedEvent,
};
use tokio::time::timeout;

use super::{Case, at, entry, id, run_cases};
use crate::fixture::TIMEOUT;

/// An empty store that can be followed.
#[async_trait]
pub(crate) trait TailFixture: Send + Sync + 'static {
    fn repository(&self) -> Arc<dyn LogRepository>;

    fn removal(&self) -> Arc<dyn LogRemoval>;

    /// Waits until the store can be followed.
    async fn tail(&self) -> Arc<dyn LogTail>;

    /// Closes the store and opens it again, like a restart.
    async fn restart(&mut self);
}

type Fixture = Box<dyn TailFixture>;

/// Runs the suite; `fresh` makes a new store for each case.
pub(crate) async fn run<Fresh>(concurrency: usize, fresh: impl Fn() -> Fresh)
where
    Fresh: Future<Output = Fixture> + Send + 'static,
{
    run_cases(CASES, concurrency, fresh).await;
}

const CASES: &[Case<Fixture>] = &[
    ("each event is returned once, in the order of storing", |f| {
        Box::pin(each_event_is_returned_once_in_the_order_of_storing(f))
    }),
    ("only matching events are returned", |f| Box::pin(only_matching_events_are_returned(f))),
    ("each token continues after its event", |f| Box::pin(each_token_continues_after_its_event(f))),
    ("a tail continues after a restart", |f| Box::pin(tail_continues_after_a_restart(f))),
    ("a token of another store is not valid", |f| Box::pin(token_of_another_store_is_not_valid(f))),
    ("removed events are not returned later", |f| {
        Box::pin(removed_events_are_not_returned_later(f))
    }),
    ("a number is not used again after a removal", |f| {
        Box::pin(position_is_not_used_again_after_a_removal(f))
    }),
    ("a slow reader learns what it missed", |f| Box::pin(slow_reader_learns_what_it_missed(f))),
    ("nothing is missing or repeated while others store and tails resume", |f| {
        Box::pin(nothing_is_missing_or_repeated_while_others_store_and_tails_resume(f))
    }),
];

fn log(n: u32) -> LogEntry {
    let user = ["ada", "bob"][n as usize % 2];
    let action = ["LOGIN", "CLICK", "LOGOUT"][n as usize / 2 % 3];
    // Times are not in the order of storing.
    entry(n, user, action, i64::from(n * 37 % 101) * 1000, &format!(r#"{{"n": {}}}"#, n % 5))
}

async fn store(repository: &Arc<dyn LogRepository>, entries: &[LogEntry]) {
    let outcomes = repository.store(entries).await.unwrap();
    assert_eq!(outcomes, vec![StoreOutcome::Stored; entries.len()]);
}

async fn follow(tail: &Arc<dyn LogTail>, after: Option<&str>) -> Box<dyn Tail> {
    tail.follow(&LogQuery::default(), after).await.unwrap()
}

/// Reads this many events, and fails if some are skipped.
async fn read(tail: &mut Box<dyn Tail>, count: usize) -> Vec<Arc<TailedEvent>> {
    let mut events: Vec<Arc<TailedEvent>> = Vec::new();
    let read = async {
        while events.len() < count {
            let batch = tail.next().await.unwrap();
            assert_eq!(batch.skipped, 0);
            assert!(batch.events.len() <= MAX_BATCH_EVENTS);
            events.extend(batch.events);
        }
    };
    assert!(timeout(TIMEOUT, read).await.is_ok(), "{} of {count} events", events.len());
    assert_eq!(events.len(), count);
    events
}

fn ids(events: &[Arc<TailedEvent>]) -> Vec<LogId> {
    events.iter().map(|event| event.entry.id).collect()
}

fn ids_of(entries: &[LogEntry]) -> Vec<LogId> {
    entries.iter().map(|entry| entry.id).collect()
}

async fn each_event_is_returned_once_in_the_order_of_storing(f: Fixture) {
    let (repository, tail) = (f.repository(), f.tail().await);
    store(&repository, &[log(1)]).await;
    let mut first = follow(&tail, None).await;
    let entries = [vec![log(3), log(2)], vec![log(5)], (10..200).map(log).collect()];
    store(&repository, &entries[0]).await;
    let mut second = follow(&tail, None).await;
    for entries in &entries[1..] {
        store(&repository, entries).await;
    }
    // Duplicates are not stored.
    repository.store(&[log(2), log(5)]).await.unwrap();
    store(&repository, &[log(300)]).await;
    let mut expected = entries.concat();
    expected.push(log(300));
    let events = read(&mut first, expected.len()).await;
    let returned: Vec<_> = events.iter().map(|event| event.entry.clone()).collect();
    // Entries of one call have no order that each store keeps.
    let sorted = |mut entries: Vec<LogEntry>| {
        entries.sort_by_key(|entry| entry.id);
        entries
    };
    assert_eq!(sorted(returned[..2].to_vec()), sorted(entries[0].clone()));
    assert_eq!(returned[2].id, id(5));
    assert_eq!(returned.last(), expected.last());
    assert_eq!(sorted(returned), sorted(expected));
    // The second may have started before the first call of storing was visible.
    let mut seen = Vec::new();
    while seen.last() != Some(&id(300)) {
        let batch = timeout(TIMEOUT, second.next()).await.unwrap().unwrap();
        seen.extend(ids(&batch.events));
    }
    assert!(ids(&events).ends_with(&seen) && seen.len() >= events.len() - 2, "{}", seen.len());
}

async fn only_matching_events_are_returned(f: Fixture) {
    let (repository, tail) = (f.repository(), f.tail().await);
    let filters = [
        LogQuery { user_id: Some("bob".to_owned()), ..LogQuery::default() },
        LogQuery { action: Some("CLICK".to_owned()), ..LogQuery::default() },
        LogQuery { from: Some(at(20_000)), to: Some(at(60_000)), ..LogQuery::default() },
        LogQuery {
            user_id: Some("ada".to_owned()),
            metadata: vec![MetadataFilter::new("n", "3.0").unwrap()],
            ..LogQuery::default()
        },
    ];
    let before = follow(&tail, None).await.token();
    let mut live = Vec::new();
    for filter in &filters {
        live.push(tail.follow(filter, None).await.unwrap());
    }
    let entries: Vec<_> = (0..101).map(log).collect();
    store(&repository, &entries).await;
    for (filter, live) in filters.iter().zip(&mut live) {
        let matches = |entry: &&LogEntry| {
            filter.user_id.as_deref().is_none_or(|user| entry.user_id.as_str() == user)
                && filter.action.as_deref().is_none_or(|action| entry.action.as_str() == action)
                && filter.from.is_none_or(|from| entry.timestamp >= from)
                && filter.to.is_none_or(|to| entry.timestamp < to)
                && (filter.metadata.is_empty() || entry.metadata.as_json() == r#"{"n": 3}"#)
        };
        let expected: BTreeSet<_> = entries.iter().filter(matches).map(|e| e.id).collect();
        assert!((5..60).contains(&expected.len()), "{filter:?}");
        let returned = ids(&read(live, expected.len()).await);
        assert_eq!(returned.iter().copied().collect::<BTreeSet<_>>(), expected, "{filter:?}");
        let mut resumed = tail.follow(filter, Some(&before)).await.unwrap();
        assert_eq!(ids(&read(&mut resumed, expected.len()).await), returned, "{filter:?}");
    }
}

async fn each_token_continues_after_its_event(f: Fixture) {
    let (repository, tail) = (f.repository(), f.tail().await);
    let mut live = follow(&tail, None).await;
    let start = live.token();
    for n in 0..10 {
        store(&repository, &[log(2 * n), log(2 * n + 1)]).await;
    }
    let events = read(&mut live, 20).await;
    let all = ids(&events);
    let tokens: Vec<_> =
        [start].into_iter().chain(events.iter().map(|event| event.token.clone())).collect();
    // The events come from memory at first, and from the store once all other tails have ended.
    for is_kept in [true, false] {
        if !is_kept {
            drop(live);
            live = Box::new(Ended);
        }
        for (n, token) in tokens.iter().enumerate().step_by(3) {
            let mut resumed = follow(&tail, Some(token)).await;
            assert_eq!(ids(&read(&mut resumed, 20 - n).await), all[n..]);
        }
    }
    let mut resumed = follow(&tail, Some(&tokens[20])).await;
    store(&repository, &[log(100)]).await;
    assert_eq!(ids(&read(&mut resumed, 1).await), [id(100)]);
    let at_end = resumed.token();
    store(&repository, &[log(101)]).await;
    let mut resumed = follow(&tail, Some(&at_end)).await;
    assert_eq!(ids(&read(&mut resumed, 1).await), [id(101)]);
}

/// A tail that holds nothing.
struct Ended;

#[async_trait]
impl Tail for Ended {
    async fn next(&mut self) -> Result<eyego_log_server::domain::tail::TailBatch, TailError> {
        unreachable!()
    }

    fn token(&self) -> String {
        unreachable!()
    }
}

async fn tail_continues_after_a_restart(mut f: Fixture) {
    let tail = f.tail().await;
    let mut live = follow(&tail, None).await;
    store(&f.repository(), &[log(1), log(2)]).await;
    let events = read(&mut live, 2).await;
    f.restart().await;
    let ended = timeout(TIMEOUT, async { while live.next().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "a tail ends with its store");
    let large: Vec<_> = (10..400).map(log).collect();
    store(&f.repository(), &large).await;
    let tail = f.tail().await;
    let mut resumed = follow(&tail, Some(&events[0].token)).await;
    let returned = ids(&read(&mut resumed, 391).await);
    assert_eq!(returned[0], events[1].entry.id);
    assert_eq!(returned.into_iter().collect::<BTreeSet<_>>().len(), 391);
    let mut at_end = follow(&tail, Some(&resumed.token())).await;
    store(&f.repository(), &[log(500)]).await;
    assert_eq!(ids(&read(&mut at_end, 1).await), [id(500)]);
}

async fn token_of_another_store_is_not_valid(f: Fixture) {
    let tail = f.tail().await;
    store(&f.repository(), &[log(1)]).await;
    let token = follow(&tail, None).await.token();
    let (start, last) = token.split_at(token.len() - 1);
    let (kind, rest) = token.split_once('-').unwrap();
    let other = if &rest[..1] == "1" { "2" } else { "1" };
    for wrong in [
        String::new(),
        "token".to_owned(),
        start.to_owned(),
        format!("{start}x"),
        format!("{token}{last}0f0f"),
        format!("{kind}-{other}{}", &rest[1..]),
        "e-0123456789abcdef-1".to_owned(),
        "m-01234567-826744A6C8000000012B0429296E1404".to_owned(),
        "z".repeat(2000),
    ] {
        let result = tail.follow(&LogQuery::default(), Some(&wrong)).await;
        let error = result.err().unwrap_or_else(|| panic!("{wrong} is accepted"));
        assert!(matches!(error, TailError::InvalidToken), "{wrong}: {error:?}");
    }
}

async fn remove_bob(f: &Fixture) -> u64 {
    let user = log(1).user_id;
    assert_eq!(user.as_str(), "bob");
    f.removal().delete_of_user(&user, at(4_000_000_000_000), 1000).await.unwrap()
}

async fn removed_events_are_not_returned_later(f: Fixture) {
    let (repository, tail) = (f.repository(), f.tail().await);
    let mut witness = follow(&tail, None).await;
    let slow = follow(&tail, None).await;
    let token = witness.token();
    let entries: Vec<_> = (0..10).map(log).collect();
    store(&repository, &entries).await;
    read(&mut witness, 10).await;
    assert_eq!(remove_bob(&f).await, 5);
    store(&repository, &[log(20)]).await;
    // Once a later event is returned, the removal has been noticed, too.
    read(&mut witness, 1).await;
    let expected: BTreeSet<_> = [0, 2, 4, 6, 8, 20].map(id).into();
    let resumed_while_followed = follow(&tail, Some(&token)).await;
    for mut tail in [slow, resumed_while_followed] {
        let returned = ids(&read(&mut tail, 6).await);
        assert_eq!(returned.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    drop(witness);
    let mut resumed = follow(&tail, Some(&token)).await;
    let returned = ids(&read(&mut resumed, 6).await);
    assert_eq!(returned.into_iter().collect::<BTreeSet<_>>(), expected);
    store(&repository, &[log(21)]).await;
    assert_eq!(ids(&read(&mut resumed, 1).await), [id(21)]);
}

async fn position_is_not_used_again_after_a_removal(mut f: Fixture) {
    let mut live = follow(&f.tail().await, None).await;
    store(&f.repository(), &[log(0), log(1), log(3)]).await;
    let events = read(&mut live, 3).await;
    drop(live);
    // Bob's events are the last ones.
    assert_eq!(remove_bob(&f).await, 2);
    for is_restarted in [false, true] {
        if is_restarted {
            f.restart().await;
        }
        let n = 10 + 2 * u32::from(is_restarted);
        store(&f.repository(), &[log(n)]).await;
        let mut resumed = follow(&f.tail().await, Some(&events[2].token)).await;
        let expected: Vec<_> = (10..=n).step_by(2).map(id).collect();
        assert_eq!(ids(&read(&mut resumed, expected.len()).await), expected);
    }
}

async fn slow_reader_learns_what_it_missed(f: Fixture) {
    const COUNT: u32 = 400;

    let (repository, tail) = (f.repository(), f.tail().await);
    let of_ada = LogQuery { user_id: Some("ada".to_owned()), ..LogQuery::default() };
    let mut slow = tail.follow(&of_ada, None).await.unwrap();
    let mut fast = follow(&tail, None).await;
    let text = format!(r#"{{"a": "{}"}}"#, "x".repeat(64 << 10));
    let reading = tokio::spawn(async move {
        let mut events = 0;
        while events < COUNT {
            let batch = timeout(TIMEOUT, fast.next()).await.unwrap().unwrap();
            assert_eq!(batch.skipped, 0);
            let bytes: usize = batch.events.iter().map(|e| e.entry.metadata.as_json().len()).sum();
            assert!(batch.events.len() <= 1 || bytes <= MAX_BATCH_BYTES);
            events += u32::try_from(batch.events.len()).unwrap();
        }
    });
    for n in (0..COUNT).step_by(20) {
        let user = |n| ["bob", "ada"][n as usize % 2];
        let entries: Vec<_> = (n..n + 20).map(|n| entry(n, user(n), "A", 0, &text)).collect();
        store(&repository, &entries).await;
    }
    reading.await.unwrap();
    let (mut skipped, mut events) = (0, Vec::new());
    while events.last() != Some(&id(COUNT - 1)) {
        let batch = timeout(TIMEOUT, slow.next()).await.unwrap().unwrap();
        skipped += batch.skipped;
        events.extend(ids(&batch.events));
    }
    assert!(skipped > 50, "{skipped}");
    assert_eq!(skipped + events.len() as u64, u64::from(COUNT) / 2, "only matching events count");
}

async fn nothing_is_missing_or_repeated_while_others_store_and_tails_resume(f: Fixture) {
    const STORES: u32 = 4;
    const CALLS: u32 = 30;
    const ENTRIES: u32 = 20;

    let (repository, tail) = (f.repository(), f.tail().await);
    let start = follow(&tail, None).await.token();
    let storing: Vec<_> = (0..STORES)
        .map(|number| {
            let repository = Arc::clone(&repository);
            tokio::spawn(async move {
                for call in 0..CALLS {
                    let first = (number * CALLS + call) * ENTRIES;
                    let entries: Vec<_> = (first..first + ENTRIES).map(log).collect();
                    store(&repository, &entries).await;
                    tokio::time::sleep(Duration::from_millis(u64::from(number * 3))).await;
                }
            })
        })
        .collect();
    let count = (STORES * CALLS * ENTRIES) as usize;
    // One stays, the others are disconnected now and then.
    let tails: Vec<_> = [usize::MAX, 1, 3, 7]
        .into_iter()
        .map(|batches| {
            let (tail, mut token) = (Arc::clone(&tail), start.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < count {
                    let mut following = follow(&tail, Some(&token)).await;
                    for _ in 0..batches {
                        let batch = timeout(TIMEOUT, following.next()).await.unwrap().unwrap();
                        assert_eq!(batch.skipped, 0);
                        seen.extend(ids(&batch.events));
                        if seen.len() >= count {
                            break;
                        }
                    }
                    token = following.token();
                }
                seen
            })
        })
        .collect();
    for storing in storing {
        storing.await.unwrap();
    }
    let mut orders = Vec::new();
    for tail in tails {
        orders.push(tail.await.unwrap());
    }
    let all: BTreeSet<_> = orders[0].iter().copied().collect();
    assert_eq!((all.len(), orders[0].len()), (count, count));
    for order in &orders[1..] {
        assert!(*order == orders[0], "all tails have one order");
    }
    let expected: Vec<_> = (0..STORES * CALLS * ENTRIES).map(log).collect();
    assert_eq!(all, ids_of(&expected).into_iter().collect());
}
