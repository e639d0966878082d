//! The metadata of the events that tails examined last, parsed once for all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::chunk::Slot;

/// Maximum size of the events whose metadata is kept, as JSON, in bytes. Parsed, it takes
/// about five times as much.
const MAX_BYTES: usize = 512 << 10;

/// The metadata of the events of a chunk. That of a removed event is empty.
pub(super) type ParsedMetadata = Arc<[Map<String, Value>]>;

#[derive(Debug)]
struct ParsedChunk<K> {
    slots: Arc<[Slot<K>]>,
    metadata: ParsedMetadata,
    /// Size of the events as JSON.
    bytes: usize,
}

/// The chunks that were parsed last, the newest last.
#[derive(Debug)]
pub(super) struct Parsed<K> {
    chunks: VecDeque<ParsedChunk<K>>,
    bytes: usize,
}

impl<K> Parsed<K> {
    pub(super) const fn new() -> Self {
        Self { chunks: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn get(&self, slots: &Arc<[Slot<K>]>) -> Option<ParsedMetadata> {
        let mut newest_first = self.chunks.iter().rev();
        let found = newest_first.find(|chunk| Arc::ptr_eq(&chunk.slots, slots))?;
        Some(Arc::clone(&found.metadata))
    }

    /// Keeps the metadata of a chunk. The oldest chunks make room for it.
    pub(super) fn insert(&mut self, slots: Arc<[Slot<K>]>, metadata: ParsedMetadata) {
        let bytes = slots.iter().map(|slot| slot.bytes).sum();
        self.bytes += bytes;
        self.chunks.push_back(ParsedChunk { slots, metadata, bytes });
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Parses the metadata of the events of a chunk.
pub(super) fn parse<K>(slots: &[Slot<K>]) -> ParsedMetadata {
    let metadata = |slot: &Slot<K>| {
        slot.event.as_ref().map(|event| event.entry.metadata.to_map()).unwrap_or_default()
    };
    slots.iter().map(metadata).collect()
}

#[cfg(test)]
mod tests {
    use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};

    use super::*;
    use crate::domain::tail::TailedEvent;

    fn slots(text_bytes: usize) -> Arc<[Slot<u8>]> {
        let metadata = format!(r#"{{"text":"{}"}}"#, "x".repeat(text_bytes));
        let entry = LogEntry::new(
            LogId::from_bytes([1; 12]),
            UserId::new("u").unwrap(),
            Action::new("A").unwrap(),
            Timestamp::from_millis(0).unwrap(),
            Metadata::from_json(metadata).unwrap(),
        );
        Arc::new([Slot::new(1, TailedEvent::new("1".to_owned(), entry))])
    }

    #[test]
    fn the_metadata_of_the_last_chunks_is_kept() {
        let mut parsed = Parsed::new();
        let chunks: Vec<_> = (0..10).map(|_| slots(100 << 10)).collect();
        for slots in &chunks {
            assert!(parsed.get(slots).is_none());
            parsed.insert(Arc::clone(slots), parse(slots));
            assert_eq!(parsed.get(slots).unwrap()[0]["text"].as_str().unwrap().len(), 100 << 10);
        }
        let kept = chunks.iter().filter(|slots| parsed.get(slots).is_some()).count();
        assert_eq!((kept, parsed.get(&chunks[0]).is_some()), (5, false));
        parsed.insert(slots(2 * MAX_BYTES), Arc::new([]));
        assert!(parsed.chunks.is_empty() && parsed.bytes == 0, "too large to be kept");
    }
}
