//! Ids derived from content: equal input gives an equal id, so a repeated event
//! is recognised as the same event.

use eyego_log_core::{LogEntry, LogId, Timestamp};
use sha2::{Digest, Sha256};

use crate::domain::position::{Offset, Partition};

/// Derives the id of a record without an id, as the legacy service writes them.
///
/// A redelivered record gets the same id. A record of a recreated topic, whose
/// offsets start again from 0, gets a different one.
///
/// The id starts with the seconds of `queued_at`, like a generated id, so that
/// records queued together are close together in the store's index.
#[must_use]
pub fn of_position(
    topic: &str,
    partition: Partition,
    offset: Offset,
    queued_at: Timestamp,
    value: &[u8],
) -> LogId {
    let hash = Hash::new(b"position")
        .field(topic.as_bytes())
        .field(&partition.to_be_bytes())
        .field(&offset.to_be_bytes())
        .field(&queued_at.as_millis().to_be_bytes())
        .field(value)
        .finish();
    let seconds = queued_at.as_millis().div_euclid(1000).to_be_bytes();
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds[4..]);
    bytes[4..].copy_from_slice(&hash[..8]);
    LogId::from_bytes(bytes)
}

/// Derives the id of a single event that was sent with an `Idempotency-Key`.
#[must_use]
pub fn of_idempotency_key(key: &str, user_id: &str) -> LogId {
    let hash = Hash::new(b"single").field(key.as_bytes()).field(user_id.as_bytes()).finish();
    first_12(&hash)
}

/// Derives the id of an item of a batch that was sent with an
/// `Idempotency-Key`. `occurrence` counts, from 0, the items with the same bytes
/// in the batch.
#[must_use]
pub fn of_batch_item(key: &str, item: &[u8], occurrence: u32) -> LogId {
    let hash = Hash::new(b"batch")
        .field(key.as_bytes())
        .field(item)
        .field(&occurrence.to_be_bytes())
        .finish();
    first_12(&hash)
}

/// Derives the id of the dead letter of an event whose own id is taken by
/// another dead letter. A retry of the same event gets the same id.
#[must_use]
pub fn of_conflict(entry: &LogEntry) -> LogId {
    let timestamp = entry.has_caller_timestamp().then(|| entry.timestamp.as_millis().to_be_bytes());
    let hash = Hash::new(b"conflict")
        .field(entry.id.as_bytes())
        .field(entry.user_id.as_str().as_bytes())
        .field(entry.action.as_str().as_bytes())
        .field(timestamp.as_ref().map_or(&[], <[u8; 8]>::as_slice))
        .field(entry.metadata.as_json().as_bytes())
        .finish();
    first_12(&hash)
}

fn first_12(hash: &[u8; 32]) -> LogId {
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&hash[..12]);
    LogId::from_bytes(bytes)
}

/// A hash over fields. Each field is preceded by its length, so that different
/// lists of fields never hash the same bytes.
struct Hash(Sha256);

impl Hash {
    fn new(purpose: &[u8]) -> Self {
        Self(Sha256::new()).field(purpose)
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use eyego_log_core::{Action, Metadata, UserId};

    use super::*;

    #[test]
    fn an_id_depends_on_every_part_of_the_position() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let id = of_position("logs", 1, 2, at(3000), b"x");
        assert_eq!(id, of_position("logs", 1, 2, at(3000), b"x"));
        assert!(id.to_string().starts_with("00000003"));
        for other in [
            of_position("log", 1, 2, at(3000), b"x"),
            of_position("logs", 0, 2, at(3000), b"x"),
            of_position("logs", 1, 3, at(3000), b"x"),
            of_position("logs", 1, 2, at(3001), b"x"),
            of_position("logs", 1, 2, at(3000), b"y"),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn the_id_of_a_conflict_depends_on_what_the_caller_sent() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let entry = |action: &str, timestamp, received_at| {
            let mut entry = LogEntry::new(
                LogId::from_bytes([1; 12]),
                UserId::new("u").unwrap(),
                Action::new(action).unwrap(),
                at(timestamp),
                Metadata::default(),
            );
            entry.received_at = Some(at(received_at));
            entry
        };
        let id = of_conflict(&entry("A", 5, 5));
        assert_eq!(id, of_conflict(&entry("A", 6, 6)), "a retry, received later");
        assert_ne!(id, of_conflict(&entry("B", 5, 5)));
        assert_ne!(id, of_conflict(&entry("A", 5, 6)));
    }

    #[test]
    fn field_boundaries_and_occurrences_change_the_id() {
        assert_ne!(of_idempotency_key("ab", "c"), of_idempotency_key("a", "bc"));
        assert_ne!(of_batch_item("k", b"x", 0), of_batch_item("k", b"x", 1));
        assert_eq!(of_batch_item("k", b"x", 1), of_batch_item("k", b"x", 1));
    }
}
