//! The events stored last, in the order of storing, for all tails of a store (ADR 0038).
//!
//! Each event is kept once. Tails have a position in the sequence and read from there
//! at their own pace. Nothing is kept while there are no tails.

mod chunk;
mod parsed;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use eyego_log_core::{LogEntry, LogQuery};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::chunk::{Chunk, Slot};
use self::parsed::{Parsed, ParsedMetadata};
use crate::domain::read::ReadError;
use crate::domain::tail::{BatchSize, TailBatch, TailedEvent, matches, matches_fields};

/// Maximum size of the events as JSON, with [`chunk::OVERHEAD`], in bytes. A tail that
/// falls behind by more misses events.
const MAX_BYTES: usize = 16 << 20;

/// Number of events after which a subscription returns although none of them matched,
/// so that others on its thread may go first.
const MAX_EXAMINED: usize = 512;

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
    /// Tails read the same events at nearly the same time.
    parsed: Mutex<Parsed<K>>,
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
    /// Number that the next event gets. Events are numbered in their order.
    next: u64,
    chunks: VecDeque<Chunk<K>>,
    bytes: usize,
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
            next: 0,
            chunks: VecDeque::new(),
            bytes: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            max_bytes: MAX_BYTES,
            parsed: Mutex::new(Parsed::new()),
        }
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
        let (next, after) = (state.next, position.clone());
        state.readers.insert(id, Reader { filter: Arc::clone(&filter), next, after, missed: 0 });
        let changed = self.changed.subscribe();
        Some(Subscription { feed: Arc::clone(self), changed, id, filter, position })
    }

    /// Adds events in their order, the last one at `end`. Calls must not overlap.
    /// `events` is not used if nobody is subscribed.
    pub(super) fn push(&self, end: K, events: impl Iterator<Item = (K, TailedEvent)>) {
        let mut slots = events.map(|(position, event)| Slot::new(position, event));
        let mut chunks = Vec::new();
        // Readers are not kept waiting while the events are copied.
        let has_readers = !self.state.lock().readers.is_empty();
        if has_readers {
            chunks = chunk::divide(slots.by_ref());
        }
        let mut state = self.state.lock();
        state.end = end;
        if state.readers.is_empty() {
            state.start = state.end.clone();
            return;
        }
        // Somebody may have subscribed since, and may already count on these events.
        if !has_readers {
            chunks = chunk::divide(slots);
        }
        for chunk in chunks {
            state.add(chunk);
        }
        let evicted = state.evict(self.max_bytes);
        drop(state);
        // Releasing many events takes long.
        drop(evicted);
    }

    /// Wakes the readers after [`push`](Self::push).
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Removes the events that `is_removed` returns true for.
    pub(super) fn remove(&self, is_removed: impl Fn(&K, &LogEntry) -> bool) {
        for chunk in &mut self.state.lock().chunks {
            chunk.remove(&is_removed);
        }
        self.parsed.lock().clear();
    }

    /// Returns the metadata of the events of a chunk.
    fn metadata(&self, slots: &Arc<[Slot<K>]>) -> ParsedMetadata {
        if let Some(known) = self.parsed.lock().get(slots) {
            return known;
        }
        let metadata = parsed::parse(slots);
        self.parsed.lock().insert(Arc::clone(slots), Arc::clone(&metadata));
        metadata
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
    fn add(&mut self, mut chunk: Chunk<K>) {
        chunk.first = self.next;
        self.next = chunk.end();
        self.bytes += chunk.memory();
        self.chunks.push_back(chunk);
    }

    /// Returns the oldest events, until the others are within `max_bytes`. One chunk is
    /// always kept.
    fn evict(&mut self, max_bytes: usize) -> Vec<Chunk<K>> {
        let mut evicted = Vec::new();
        while self.bytes > max_bytes
            && self.chunks.len() > 1
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.bytes -= chunk.memory();
            evicted.push(chunk);
        }
        if let Some(last) = evicted.last() {
            self.start = last.last_position().clone();
            self.count_missed(&evicted);
        }
        evicted
    }

    /// Counts what slow readers miss of `evicted`, which is not empty.
    fn count_missed(&mut self, evicted: &[Chunk<K>]) {
        let (first, end) = (evicted[0].first, evicted[evicted.len() - 1].end());
        if self.readers.values().all(|reader| reader.next >= end) {
            return;
        }
        let slots: Vec<_> = evicted.iter().flat_map(|chunk| chunk.slots.iter()).collect();
        let mut checked: Vec<(Arc<LogQuery>, Vec<u64>)> = Vec::new();
        let all = counts(&slots, |_| true);
        for reader in self.readers.values_mut().filter(|reader| reader.next < end) {
            let is_known = checked.iter().any(|(filter, _)| *filter == reader.filter);
            if !is_known && checked.len() < MAX_CHECKED_FILTERS {
                let matching = counts(&slots, |entry| matches(&reader.filter, entry));
                checked.push((Arc::clone(&reader.filter), matching));
            }
            let counts = checked.iter().find(|(filter, _)| *filter == reader.filter);
            let counts = counts.map_or(&all, |(_, counts)| counts);
            let read = usize::try_from(reader.next.saturating_sub(first)).unwrap_or(usize::MAX);
            let before = slots.partition_point(|slot| slot.position <= reader.after);
            reader.missed += counts[read.max(before)];
            reader.next = end;
        }
    }
}

/// Returns how many events match from each slot on.
fn counts<K>(slots: &[&Slot<K>], matches: impl Fn(&LogEntry) -> bool) -> Vec<u64> {
    let mut counts = vec![0; slots.len() + 1];
    for (n, slot) in slots.iter().enumerate().rev() {
        let is_match = slot.event.as_ref().is_some_and(|event| matches(&event.entry));
        counts[n] = counts[n + 1] + u64::from(is_match);
    }
    counts
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
        let chunk = state.chunks.partition_point(|chunk| chunk.last_position() <= position);
        let next = state.chunks.get(chunk).map_or(state.next, |chunk| chunk.number_after(position));
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
    pub(super) async fn next(&mut self) -> Result<TailBatch, ReadError> {
        loop {
            self.changed.borrow_and_update();
            if let Some(batch) = self.take()? {
                return Ok(batch);
            }
            // The sender is a part of the feed, which this refers to.
            let _ = self.changed.changed().await;
        }
    }

    /// Returns matching events, or `None` if there is nothing new.
    fn take(&mut self) -> Result<Option<TailBatch>, ReadError> {
        let (mut batch, mut size) = (TailBatch::default(), BatchSize::default());
        let (start, mut examined) = (self.position.clone(), 0);
        while examined < MAX_EXAMINED {
            let Some(slots) = self.read(&mut batch, &size, examined == 0)? else { break };
            // Matching can take long, so it does not keep others waiting.
            let read = slots.partition_point(|slot| slot.position <= self.position);
            examined += slots.len() - read;
            if let Some(last) = slots[read..].last() {
                self.position = last.position.clone();
            }
            let mut metadata = None;
            for (n, slot) in slots.iter().enumerate().skip(read) {
                let Some(event) = &slot.event else { continue };
                if !matches_fields(&self.filter, &event.entry) {
                    continue;
                }
                let filters = &self.filter.metadata;
                if !filters.is_empty() {
                    let metadata = metadata.get_or_insert_with(|| self.feed.metadata(&slots));
                    let map = &metadata[n];
                    if !filters.iter().all(|filter| filter.matches(map)) {
                        continue;
                    }
                }
                size.add(slot.bytes);
                batch.events.push(Arc::clone(event));
            }
        }
        let has_read = examined > 0 || batch.skipped > 0 || self.position > start;
        Ok(has_read.then_some(batch))
    }

    /// Reads the next chunk, a part of which may have been read before. Returns `None` if
    /// there is none, or `batch` has no room for it.
    fn read(
        &mut self,
        batch: &mut TailBatch,
        size: &BatchSize,
        is_first: bool,
    ) -> Result<Option<Arc<[Slot<K>]>>, ReadError> {
        let state = &mut *self.feed.state.lock();
        let Some(reader) = state.readers.get_mut(&self.id) else { return Ok(None) };
        if is_first {
            batch.skipped += std::mem::take(&mut reader.missed);
        } else if reader.missed > 0 {
            // Those were stored after the events of this batch.
            return Ok(None);
        }
        let index = state.chunks.partition_point(|chunk| chunk.end() <= reader.next);
        if let Some(chunk) = state.chunks.get(index) {
            if !size.has_room(chunk.slots.len(), chunk.bytes) {
                return Ok(None);
            }
            reader.next = chunk.end();
            return Ok(Some(Arc::clone(&chunk.slots)));
        }
        if state.end > self.position {
            self.position = state.end.clone();
        } else if let Some(reason) = &state.closed
            && is_first
            && batch.skipped == 0
        {
            return Err(ReadError::Unavailable(reason.clone()));
        }
        Ok(None)
    }
}

impl<K: Ord + Clone> Drop for Subscription<K> {
    fn drop(&mut self) {
        let mut state = self.feed.state.lock();
        state.readers.remove(&self.id);
        if state.readers.is_empty() {
            state.chunks = VecDeque::new();
            state.bytes = 0;
            state.start = state.end.clone();
            self.feed.parsed.lock().clear();
        }
    }
}

#[cfg(test)]
mod tests;
