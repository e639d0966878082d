//! The events stored last, in the order of storing, for all tails of a store (ADR 0038).
//!
//! Each event is kept once. Tails have a position in the sequence and read from there
//! at their own pace. Nothing is kept while there are no tails.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use eyego_log_core::{LogEntry, LogQuery};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::read::{PageItem as _, ReadError};
use crate::domain::tail::{BatchSize, matches};

/// Maximum size of the events as JSON, with [`OVERHEAD`], in bytes. A tail that falls
/// behind by more misses events.
const MAX_BYTES: usize = 16 << 20;

/// Memory of an event beside its text.
const OVERHEAD: usize = 200;

/// Maximum number of different filters that missed events are matched with. Storing
/// waits for it, so if tails with more filters miss events, the other tails count all.
const MAX_CHECKED_FILTERS: usize = 8;

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
    /// The subscriptions by their ids.
    readers: HashMap<u64, Reader<K>>,
    next_reader: u64,
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

/// How far a subscription has read.
#[derive(Debug)]
struct Reader<K> {
    filter: Arc<LogQuery>,
    /// Number of the next event to read.
    next: u64,
    /// Events up to this position are not for this reader.
    after: K,
    /// Number of events for this reader that it has missed and not reported.
    missed: u64,
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
    id: u64,
    filter: Arc<LogQuery>,
    /// The last position that was read. Earlier events are not returned.
    position: K,
}

impl<K: Ord + Clone> Feed<K> {
    /// Creates a feed of the events after `position`.
    pub(super) fn new(position: K) -> Self {
        let state = State {
            readers: HashMap::new(),
            next_reader: 0,
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
        let (filter, position) = (Arc::new(filter.clone()), state.end.clone());
        let id = state.next_reader;
        state.next_reader += 1;
        let (next, after) = (state.next(), position.clone());
        state.readers.insert(id, Reader { filter: Arc::clone(&filter), next, after, missed: 0 });
        let changed = self.changed.subscribe();
        Some(Subscription { feed: Arc::clone(self), changed, id, filter, position })
    }

    /// Adds events in their order, the last one at `end`. Calls must not overlap.
    /// `entries` is not used if nobody is subscribed.
    pub(super) fn push(&self, end: K, entries: impl Iterator<Item = (K, LogEntry)>) {
        let mut entries = entries.map(|(position, entry)| Slot::new(position, entry));
        let mut slots = Vec::new();
        // Readers are not kept waiting while the entries are copied.
        let has_readers = !self.state.lock().readers.is_empty();
        if has_readers {
            slots.extend(entries.by_ref());
        }
        let mut state = self.state.lock();
        state.end = end;
        if state.readers.is_empty() {
            state.start = state.end.clone();
            return;
        }
        // Somebody may have subscribed since, and may already count on these entries.
        slots.extend(entries);
        state.bytes += slots.iter().map(|slot| slot.bytes).sum::<usize>();
        state.slots.extend(slots);
        state.evict(self.max_bytes);
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
        if state.readers.is_empty() {
            state.closed.get_or_insert_default();
        }
        state.readers.is_empty()
    }
}

impl<K: Ord + Clone> State<K> {
    /// Returns the number that the next event gets.
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Drops the oldest events until the others are within `max_bytes`. One is always
    /// kept.
    fn evict(&mut self, max_bytes: usize) {
        let mut count = 0;
        for slot in self.slots.iter().take(self.slots.len().saturating_sub(1)) {
            if self.bytes <= max_bytes {
                break;
            }
            self.bytes -= slot.bytes;
            count += 1;
        }
        let evicted: Vec<_> = self.slots.drain(..count).collect();
        let Some(last) = evicted.last() else { return };
        self.start = last.position.clone();
        let first = self.first;
        self.first += count as u64;
        self.count_missed(first, &evicted);
    }

    /// Counts what slow readers miss of `evicted`, whose first event has the number
    /// `first`.
    fn count_missed(&mut self, first: u64, evicted: &[Slot<K>]) {
        let end = self.first;
        let mut checked: Vec<(Arc<LogQuery>, Vec<bool>)> = Vec::new();
        for reader in self.readers.values_mut().filter(|reader| reader.next < end) {
            let is_known = checked.iter().any(|(filter, _)| *filter == reader.filter);
            if !is_known && checked.len() < MAX_CHECKED_FILTERS {
                let matching = evicted.iter().map(|slot| {
                    slot.entry.as_ref().is_some_and(|entry| matches(&reader.filter, entry))
                });
                checked.push((Arc::clone(&reader.filter), matching.collect()));
            }
            let matching = checked.iter().find(|(filter, _)| *filter == reader.filter);
            let read = usize::try_from(reader.next - first).unwrap_or(usize::MAX);
            let missed = evicted.iter().enumerate().skip(read).filter(|(n, slot)| {
                slot.position > reader.after
                    && matching.map_or(slot.entry.is_some(), |(_, matching)| matching[*n])
            });
            reader.missed += missed.count() as u64;
            reader.next = end;
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
        let mut state = self.feed.state.lock();
        if *position < state.start {
            return false;
        }
        let before = state.slots.partition_point(|slot| slot.position <= *position);
        let next = state.first + before as u64;
        if let Some(reader) = state.readers.get_mut(&self.id) {
            // What was missed until now is before the position, or still kept.
            (reader.next, reader.after, reader.missed) = (next, position.clone(), 0);
        }
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
        let state = &mut *self.feed.state.lock();
        let end = state.next();
        let Some(reader) = state.readers.get_mut(&self.id) else { return Ok(None) };
        let skipped = std::mem::take(&mut reader.missed);
        let start = usize::try_from(reader.next - state.first).unwrap_or(usize::MAX);
        let (mut events, mut size) = (Vec::new(), BatchSize::default());
        let first = reader.next;
        for slot in state.slots.iter().skip(start).take_while(|slot| size.add(slot.bytes)) {
            reader.next += 1;
            if slot.position <= self.position {
                continue;
            }
            self.position = slot.position.clone();
            events.extend(slot.entry.clone().map(|entry| (slot.position.clone(), entry)));
        }
        let is_ahead = reader.next == end && state.end > self.position;
        if is_ahead {
            self.position = state.end.clone();
        }
        let has_read = reader.next > first;
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
        state.readers.remove(&self.id);
        if state.readers.is_empty() {
            state.first = state.next();
            state.slots = VecDeque::new();
            state.bytes = 0;
            state.start = state.end.clone();
        }
    }
}

#[cfg(test)]
mod tests;
