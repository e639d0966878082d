//! Chunks: consecutive events of a feed, which tails read together.

use std::sync::Arc;

use eyego_log_core::LogEntry;

use crate::domain::read::PageItem as _;
use crate::domain::tail::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, TailedEvent};

/// Memory of an event beside its text.
pub(super) const OVERHEAD: usize = 200;

/// Maximum size of the events of a chunk as JSON, in bytes. A single larger event is a
/// chunk of its own. A batch has room for two chunks.
const MAX_BYTES: usize = MAX_BATCH_BYTES / 2;

/// Maximum number of events of a chunk.
const MAX_EVENTS: usize = MAX_BATCH_EVENTS / 2;

/// Consecutive events, at least one.
#[derive(Debug)]
pub(super) struct Chunk<K> {
    /// Number of the first event.
    pub(super) first: u64,
    pub(super) slots: Arc<[Slot<K>]>,
    /// Size of the events as JSON.
    pub(super) bytes: usize,
}

/// The place of an event.
#[derive(Debug, Clone)]
pub(super) struct Slot<K> {
    pub(super) position: K,
    /// Size of the event as JSON.
    pub(super) bytes: usize,
    /// `None` once the event was removed.
    pub(super) event: Option<Arc<TailedEvent>>,
}

impl<K> Slot<K> {
    pub(super) fn new(position: K, event: TailedEvent) -> Self {
        Self { position, bytes: event.entry.json_bytes(), event: Some(Arc::new(event)) }
    }
}

/// Divides events into chunks, whose numbers are not set yet.
pub(super) fn divide<K>(slots: impl Iterator<Item = Slot<K>>) -> Vec<Chunk<K>> {
    let (mut chunks, mut slots_of_chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for slot in slots {
        let is_full = slots_of_chunk.len() == MAX_EVENTS || bytes + slot.bytes > MAX_BYTES;
        if is_full && !slots_of_chunk.is_empty() {
            chunks.push(Chunk::new(std::mem::take(&mut slots_of_chunk)));
            bytes = 0;
        }
        bytes += slot.bytes;
        slots_of_chunk.push(slot);
    }
    if !slots_of_chunk.is_empty() {
        chunks.push(Chunk::new(slots_of_chunk));
    }
    chunks
}

impl<K> Chunk<K> {
    fn new(slots: Vec<Slot<K>>) -> Self {
        Self { first: 0, bytes: slots.iter().map(|slot| slot.bytes).sum(), slots: slots.into() }
    }

    /// Returns the number behind that of the last event.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn last_position(&self) -> &K {
        &self.slots[self.slots.len() - 1].position
    }

    /// Returns the memory that the events are counted with.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.slots.len() * OVERHEAD
    }
}

impl<K: Ord + Clone> Chunk<K> {
    /// Returns the number of the first event after `position`.
    pub(super) fn number_after(&self, position: &K) -> u64 {
        self.first + self.slots.partition_point(|slot| slot.position <= *position) as u64
    }

    /// Removes the events that `is_removed` returns true for.
    pub(super) fn remove(&mut self, is_removed: impl Fn(&K, &LogEntry) -> bool) {
        let is_removed = |slot: &Slot<K>| {
            slot.event.as_ref().is_some_and(|event| is_removed(&slot.position, &event.entry))
        };
        if self.slots.iter().any(is_removed) {
            // A tail may be reading the chunk.
            let slots = self.slots.iter().map(|slot| match is_removed(slot) {
                true => Slot { event: None, ..slot.clone() },
                false => slot.clone(),
            });
            self.slots = slots.collect();
        }
    }
}
