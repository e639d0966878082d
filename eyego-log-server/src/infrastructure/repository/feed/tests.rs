//! Readers of a feed: positions, missed events, removals.

use eyego_log_core::{Action, LogId, Metadata, Timestamp, UserId};

use super::chunk::OVERHEAD;
use super::*;
use crate::domain::read::PageItem as _;

fn entry(n: u8, user: &str, text_bytes: usize) -> LogEntry {
    LogEntry::new(
        LogId::from_bytes([n; 12]),
        UserId::new(user).unwrap(),
        Action::new("A").unwrap(),
        Timestamp::from_millis(i64::from(n)).unwrap(),
        Metadata::from_json(format!("{{\"a\":\"{}\"}}", "x".repeat(text_bytes))).unwrap(),
    )
}

fn feed(max_bytes: usize) -> Arc<Feed<u8>> {
    Arc::new(Feed { max_bytes, ..Feed::new(0) })
}

fn event(n: u8, user: &str, text_bytes: usize) -> (u8, TailedEvent) {
    (n, TailedEvent::new(n.to_string(), entry(n, user, text_bytes)))
}

/// Adds these events one by one.
fn push(feed: &Feed<u8>, numbers: std::ops::RangeInclusive<u8>) {
    for n in numbers {
        feed.push(n, std::iter::once(event(n, "u", 10)));
    }
    feed.notify();
}

fn positions(batch: &TailBatch) -> Vec<u8> {
    batch.events.iter().map(|event| event.token.parse().unwrap()).collect()
}

/// Reads what is there, as positions, and the number of skipped events.
fn read(subscription: &mut Subscription<u8>) -> (u64, Vec<u8>) {
    let (mut skipped, mut read) = (0, Vec::new());
    while let Some(batch) = subscription.take().unwrap() {
        skipped += batch.skipped;
        read.extend(positions(&batch));
    }
    (skipped, read)
}

#[test]
fn each_reader_gets_every_event_once_from_its_start() {
    let feed = feed(MAX_BYTES);
    push(&feed, 1..=2);
    let mut first = feed.subscribe(&LogQuery::default()).unwrap();
    assert_eq!((read(&mut first), first.position()), ((0, vec![]), 2));
    push(&feed, 3..=4);
    let mut second = feed.subscribe(&LogQuery::default()).unwrap();
    push(&feed, 5..=5);
    assert_eq!(read(&mut first), (0, vec![3, 4, 5]));
    assert_eq!(read(&mut second), (0, vec![5]));
    assert!(second.seek(&3));
    assert_eq!((read(&mut second), second.position()), ((0, vec![4, 5]), 5));
    assert!(!second.seek(&1), "nobody was subscribed then");
}

#[test]
fn events_up_to_the_position_of_a_seek_ahead_are_not_returned() {
    let feed = feed(MAX_BYTES);
    let mut ahead = feed.subscribe(&LogQuery::default()).unwrap();
    push(&feed, 1..=1);
    assert!(ahead.seek(&3));
    push(&feed, 2..=5);
    assert_eq!(read(&mut ahead), (0, vec![4, 5]));
}

#[test]
fn slow_reader_learns_how_many_events_it_missed() {
    let feed = feed(3 * (entry(1, "u", 10).json_bytes() + OVERHEAD));
    let mut slow = feed.subscribe(&LogQuery::default()).unwrap();
    push(&feed, 1..=10);
    assert_eq!(read(&mut slow), (7, vec![8, 9, 10]));
    assert!(!slow.seek(&6));
    assert!(slow.seek(&7));
}

#[test]
fn only_events_that_a_slow_reader_would_have_received_count_as_missed() {
    let feed = feed(2 * (entry(1, "u", 10).json_bytes() + OVERHEAD));
    let of = |user: &str| LogQuery { user_id: Some(user.to_owned()), ..LogQuery::default() };
    let push = |numbers: std::ops::RangeInclusive<u8>| {
        let user = |n: u8| if n.is_multiple_of(5) { "v" } else { "u" };
        for n in numbers {
            feed.push(n, std::iter::once(event(n, user(n), 10)));
        }
        feed.notify();
    };
    let mut others = feed.subscribe(&of("nobody")).unwrap();
    let mut slow = feed.subscribe(&of("v")).unwrap();
    let mut resumed = feed.subscribe(&LogQuery::default()).unwrap();
    push(1..=2);
    assert!(resumed.seek(&9), "it has read this much before it was disconnected");
    assert_eq!((read(&mut slow), slow.position()), ((0, vec![]), 2));
    push(3..=20);
    push(21..=32);
    assert_eq!(read(&mut slow), (6, vec![]));
    assert_eq!(read(&mut others), (0, vec![]));
    assert_eq!(read(&mut resumed), (21, vec![31, 32]));
}

#[test]
fn too_many_different_filters_are_not_checked_while_events_are_stored() {
    let feed = feed(0);
    let of = |user: u64| LogQuery { user_id: Some(user.to_string()), ..LogQuery::default() };
    let count = MAX_CHECKED_FILTERS as u64 + 2;
    // Two readers each with the same filter.
    let mut readers: Vec<_> =
        (0..2 * count).map(|n| feed.subscribe(&of(n % count)).unwrap()).collect();
    push(&feed, 1..=5);
    let missed: Vec<_> = readers.iter_mut().map(|reader| read(reader).0).collect();
    assert_eq!(missed.iter().filter(|missed| **missed == 0).count(), 2 * MAX_CHECKED_FILTERS);
    assert_eq!(missed.iter().filter(|missed| **missed == 4).count(), 4);
}

#[test]
fn removed_events_are_not_returned() {
    let feed = feed(MAX_BYTES);
    let mut subscription = feed.subscribe(&LogQuery::default()).unwrap();
    push(&feed, 1..=3);
    feed.remove(|position, _| *position == 2);
    assert_eq!(read(&mut subscription), (0, vec![1, 3]));
}

#[test]
fn nothing_is_kept_without_readers() {
    let feed = feed(MAX_BYTES);
    let subscription = feed.subscribe(&LogQuery::default()).unwrap();
    push(&feed, 1..=3);
    drop(subscription);
    let is_empty = |state: &State<u8>| state.bytes == 0 && state.chunks.is_empty();
    assert!(is_empty(&feed.state.lock()));
    push(&feed, 4..=5);
    let mut subscription = feed.subscribe(&LogQuery::default()).unwrap();
    assert!(!feed.close_if_unused());
    assert_eq!((read(&mut subscription), subscription.position()), ((0, vec![]), 5));
    drop(subscription);
    assert!(feed.close_if_unused());
    assert!(feed.subscribe(&LogQuery::default()).is_none());
}

#[tokio::test]
async fn a_batch_is_bounded_and_has_only_matching_events() {
    let feed = feed(MAX_BYTES);
    let filter = LogQuery { user_id: Some("v".to_owned()), ..LogQuery::default() };
    let mut subscription = feed.subscribe(&filter).unwrap();
    let sizes = [10_000, 5_000, 5_000, 40_000, 10];
    let users = ["v", "u", "v", "v", "u"];
    let events = (1..).zip(sizes.into_iter().zip(users));
    feed.push(5, events.map(|(n, (size, user))| event(n, user, size)));
    let mut batches = Vec::new();
    while subscription.position() < 5 {
        batches.push(positions(&subscription.next().await.unwrap()));
    }
    assert_eq!(batches, [vec![1, 3], vec![4], vec![]]);
    feed.close("stopped");
    assert!(matches!(subscription.next().await, Err(ReadError::Unavailable(_))));
}

#[test]
fn many_events_that_do_not_match_are_passed_over_at_once() {
    let feed = Arc::new(Feed::new(0));
    let filter = LogQuery { user_id: Some("v".to_owned()), ..LogQuery::default() };
    let mut subscription = feed.subscribe(&filter).unwrap();
    feed.push(5_000, (1..=5_000).map(|n| (n, event(0, "u", 10).1)));
    let mut batches = 0;
    while let Some(batch) = subscription.take().unwrap() {
        assert_eq!(batch.events.len(), 0);
        batches += 1;
    }
    assert_eq!(subscription.position(), 5_000);
    assert!((2..=10).contains(&batches), "{batches} batches");
}

#[test]
fn missed_events_are_reported_before_the_events_after_them() {
    let feed = feed(0);
    let mut slow = feed.subscribe(&LogQuery::default()).unwrap();
    push(&feed, 1..=1);
    let first = slow.take().unwrap().unwrap();
    assert_eq!((first.skipped, positions(&first)), (0, vec![1]));
    push(&feed, 2..=4);
    let second = slow.take().unwrap().unwrap();
    assert_eq!((second.skipped, positions(&second)), (2, vec![4]));
    assert!(slow.take().unwrap().is_none());
}

#[test]
fn filters_on_metadata_are_those_of_the_whole_entry() {
    let feed = feed(1 << 20);
    let query = |value: &str| LogQuery::from_pairs([("metadata.a", value)]).unwrap();
    let mut matching = feed.subscribe(&query(&"x".repeat(10))).unwrap();
    let mut second = feed.subscribe(&query(&"x".repeat(10))).unwrap();
    let mut others = feed.subscribe(&query("y")).unwrap();
    push(&feed, 1..=5);
    assert_eq!(read(&mut matching), (0, vec![1, 2, 3, 4, 5]));
    feed.remove(|position, _| *position == 4);
    assert_eq!(read(&mut second), (0, vec![1, 2, 3, 5]));
    assert_eq!(read(&mut others), (0, vec![]));
    drop((matching, second, others));
    assert!(feed.parsed.lock().is_empty());
}
