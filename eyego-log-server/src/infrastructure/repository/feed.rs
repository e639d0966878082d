//! The events stored last, in the order of storing, for all tails of a store (ADR 0038).
//!
//! Each event is kept once. Tails have a position in the sequence and read from there
//! at their own pace. Nothing is kept while there are no tails.

use std::collections::VecDeque;
use std::sync::Arc;

use eyego_log_core::{LogEntry, LogQuery};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::read::{PageItem as _, ReadError};
use crate::domain::tail::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, matches};

/// Maximum size of the events as JSON, with [`OVERHEAD`], in bytes. A tail that falls
/// behind by more misses events.
const MAX_BYTES: usize = 16 << 20;

/// Memory of an event beside its text.
const OVERHEAD: usize = 200;

/// The events stored last. `K` is the position of an event in the order of the store.
#[derive(Debug)]
pub(super) struct Feed<K> {
    state: Mutex<State<K>>,
    /// Notified when events are added.
    changed: watch::Sender<()>,
    max_bytes: usize,
}

#[derive(Debug)]
struct State<K> {
    subscribers: usize,
    /// The reason nothing is added any more.
    closed: Option<String>,
    /// All events after this position, up to `end`, are kept.
    start: K,
    end: K,
    /// Number of the first kept event. Events are numbered in their order.
    first: u64,
    slots: VecDeque<Slot<K>>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot<K> {
    position: K,
    bytes: usize,
    /// `None` once the event was removed.
    entry: Option<Arc<LogEntry>>,
}

impl<K> Slot<K> {
    fn new(position: K, entry: LogEntry) -> Self {
        let bytes = entry.json_bytes() + OVERHEAD;
        Self { position, bytes, entry: Some(Arc::new(entry)) }
    }
}

/// The next events of a subscription.
#[derive(Debug)]
pub(super) struct Taken<K> {
    pub(super) skipped: u64,
    pub(super) events: Vec<(K, Arc<LogEntry>)>,
}

/// A reader of a feed.
#[derive(Debug)]
pub(super) struct Subscription<K: Ord + Clone> {
    feed: Arc<Feed<K>>,
    changed: watch::Receiver<()>,
    filter: LogQuery,
    /// Number of the next event to read.
    next: u64,
    /// The last position that was read. Earlier events are not returned.
    position: K,
}

impl<K: Ord + Clone> Feed<K> {
    /// Creates a feed of the events after `position`.
    pub(super) fn new(position: K) -> Self {
        let state = State {
            subscribers: 0,
            closed: None,
            start: position.clone(),
            end: position,
            first: 0,
            slots: VecDeque::new(),
            bytes: 0,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), max_bytes: MAX_BYTES }
    }

    /// Returns the position of the last event.
    pub(super) fn end(&self) -> K {
        self.state.lock().end.clone()
    }

    /// Subscribes to matching events from now on. Returns `None` if the feed is closed.
    pub(super) fn subscribe(self: &Arc<Self>, filter: &LogQuery) -> Option<Subscription<K>> {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return None;
        }
        state.subscribers += 1;
        Some(Subscription {
            feed: Arc::clone(self),
            changed: self.changed.subscribe(),
            filter: filter.clone(),
            next: state.next(),
            position: state.end.clone(),
        })
    }

    /// Adds events in their order, the last one at `end`. Calls must not overlap.
    /// `entries` is not used if nobody is subscribed.
    pub(super) fn push(&self, end: K, entries: impl Iterator<Item = (K, LogEntry)>) {
        let mut entries = entries.map(|(position, entry)| Slot::new(position, entry));
        let mut slots = Vec::new();
        // Readers are not kept waiting while the entries are copied.
        let has_subscribers = self.state.lock().subscribers > 0;
        if has_subscribers {
            slots.extend(entries.by_ref());
        }
        let mut state = self.state.lock();
        state.end = end;
        if state.subscribers == 0 {
            state.start = state.end.clone();
            return;
        }
        // Somebody may have subscribed since, and may already count on these entries.
        slots.extend(entries);
        state.bytes += slots.iter().map(|slot| slot.bytes).sum::<usize>();
        state.slots.extend(slots);
        while state.bytes > self.max_bytes && state.slots.len() > 1 {
            state.evict();
        }
    }

    /// Wakes the readers after [`push`](Self::push).
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Removes the events that `is_removed` returns true for.
    pub(super) fn remove(&self, is_removed: impl Fn(&K, &LogEntry) -> bool) {
        for slot in &mut self.state.lock().slots {
            slot.entry = slot.entry.take().filter(|entry| !is_removed(&slot.position, entry));
        }
    }

    /// Ends all subscriptions once they have read what is kept.
    pub(super) fn close(&self, reason: impl Into<String>) {
        self.state.lock().closed.get_or_insert(reason.into());
        self.notify();
    }

    /// Closes the feed and returns true if nobody is subscribed.
    pub(super) fn close_if_unused(&self) -> bool {
        let mut state = self.state.lock();
        if state.subscribers == 0 {
            state.closed.get_or_insert_default();
        }
        state.subscribers == 0
    }
}

impl<K: Clone> State<K> {
    /// Returns the number that the next event gets.
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn evict(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.start = slot.position;
            self.bytes -= slot.bytes;
            self.first += 1;
        }
    }
}

impl<K: Ord + Clone> Subscription<K> {
    /// Returns the position after everything that was returned.
    pub(super) fn position(&self) -> K {
        self.position.clone()
    }

    /// Continues after `position`. Returns false if the events after it are not kept.
    pub(super) fn seek(&mut self, position: &K) -> bool {
        let state = self.feed.state.lock();
        if *position < state.start {
            return false;
        }
        let before = state.slots.partition_point(|slot| slot.position <= *position);
        self.next = state.first + before as u64;
        self.position = position.clone();
        true
    }

    /// Waits for the next events. May return none, if none of those added match.
    ///
    /// # Errors
    /// Returns an error if the feed is closed.
    pub(super) async fn next(&mut self) -> Result<Taken<K>, ReadError> {
        loop {
            self.changed.borrow_and_update();
            if let Some(mut taken) = self.take()? {
                taken.events.retain(|(_, entry)| matches(&self.filter, entry));
                return Ok(taken);
            }
            // The sender is a part of the feed, which this refers to.
            let _ = self.changed.changed().await;
        }
    }

    /// Reads events whether they match or not. Returns `None` if there is nothing new.
    fn take(&mut self) -> Result<Option<Taken<K>>, ReadError> {
        let state = self.feed.state.lock();
        let skipped = state.first.saturating_sub(self.next);
        self.next += skipped;
        let start = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut has_read = false;
        for slot in state.slots.iter().skip(start).take(MAX_BATCH_EVENTS) {
            bytes += slot.bytes;
            if has_read && bytes > MAX_BATCH_BYTES {
                break;
            }
            has_read = true;
            self.next += 1;
            if slot.position <= self.position {
                continue;
            }
            self.position = slot.position.clone();
            events.extend(slot.entry.clone().map(|entry| (slot.position.clone(), entry)));
        }
        let is_ahead = self.next == state.next() && state.end > self.position;
        if is_ahead {
            self.position = state.end.clone();
        }
        match &state.closed {
            _ if has_read || is_ahead || skipped > 0 => Ok(Some(Taken { skipped, events })),
            Some(reason) => Err(ReadError::Unavailable(reason.clone())),
            None => Ok(None),
        }
    }
}

impl<K: Ord + Clone> Drop for Subscription<K> {
    fn drop(&mut self) {
        let mut state = self.feed.state.lock();
        state.subscribers -= 1;
        if state.subscribers == 0 {
            state.first = state.next();
            state.slots = VecDeque::new();
            state.bytes = 0;
            state.start = state.end.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use eyego_log_core::{Action, LogId, Metadata, Timestamp, UserId};

    use super::*;

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

    fn push(feed: &Feed<u8>, numbers: std::ops::RangeInclusive<u8>) {
        feed.push(*numbers.end(), numbers.map(|n| (n, entry(n, "u", 10))));
        feed.notify();
    }

    /// Reads what is there, as positions, and the number of skipped events.
    fn read(subscription: &mut Subscription<u8>) -> (u64, Vec<u8>) {
        let (mut skipped, mut positions) = (0, Vec::new());
        while let Some(taken) = subscription.take().unwrap() {
            skipped += taken.skipped;
            positions.extend(taken.events.iter().map(|(position, _)| *position));
        }
        (skipped, positions)
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
        let is_empty = |state: &State<u8>| state.bytes == 0 && state.slots.is_empty();
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
        let entries = (1..).zip(sizes.into_iter().zip(users));
        feed.push(5, entries.map(|(n, (size, user))| (n, entry(n, user, size))));
        let mut batches = Vec::new();
        while subscription.position() < 5 {
            let taken = subscription.next().await.unwrap();
            batches.push(taken.events.iter().map(|(position, _)| *position).collect::<Vec<_>>());
        }
        assert_eq!(batches, [vec![1], vec![3], vec![4], vec![]]);
        feed.close("stopped");
        assert!(matches!(subscription.next().await, Err(ReadError::Unavailable(_))));
    }
}
