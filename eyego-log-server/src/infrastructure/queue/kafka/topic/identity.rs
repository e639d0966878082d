//! Which topic of the configured name exists. Pure.

use std::collections::{HashMap, VecDeque};

use super::client::PartitionOffsets;
use crate::domain::position::{Offset, Partition};

/// Number of ids of deleted topics that are remembered.
const MAX_FORMER: usize = 16;

/// The id of the topic, and what is known of its predecessor of the same name.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    current: Option<String>,
    /// Ids of deleted topics, the latest last.
    former: VecDeque<String>,
    /// Last observed offsets of the deleted topic.
    previous: HashMap<Partition, PartitionOffsets>,
}

/// What an observed id means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The topic is the same as before, or there was none before.
    Same,
    /// The topic was deleted and created again.
    Replaced,
    /// A broker that did not hear of the deletion yet described a deleted topic.
    Deleted,
}

impl Identity {
    /// Returns the id of the topic, if known.
    pub(super) fn id(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// Returns what this id means. Ids are never used again. Brokers older than 2.8
    /// have none.
    pub(super) fn compare(&self, id: Option<&str>) -> Seen {
        match (self.id(), id) {
            (_, Some(id)) if self.former.iter().any(|former| former == id) => Seen::Deleted,
            (Some(current), Some(id)) if current != id => Seen::Replaced,
            _ => Seen::Same,
        }
    }

    /// Notes the id of the topic. `offsets` are the last observed ones.
    pub(super) fn note(
        &mut self,
        id: Option<&str>,
        offsets: &HashMap<Partition, PartitionOffsets>,
    ) {
        if self.compare(id) == Seen::Replaced {
            self.former.extend(self.current.take());
            if self.former.len() > MAX_FORMER {
                self.former.pop_front();
            }
            self.previous.clone_from(offsets);
        }
        if let Some(id) = id {
            self.current = Some(id.to_owned());
        }
    }

    /// Returns the number of records at and above `next` that nobody can have stored
    /// when the previous topic was deleted.
    pub(super) fn lost(&self, partition: Partition, next: Offset) -> u64 {
        let Some(PartitionOffsets { end, committed, .. }) = self.previous.get(&partition) else {
            return 0;
        };
        let settled = committed.map_or(next, |committed| committed.max(next));
        u64::try_from(end - settled).unwrap_or(0)
    }
}

/// Returns `true` if an end moved back or a committed offset is gone, as it happens
/// when the topic is replaced.
pub(super) fn moved_back(
    before: &HashMap<Partition, PartitionOffsets>,
    now: &HashMap<Partition, PartitionOffsets>,
) -> bool {
    now.iter().any(|(partition, now)| {
        before.get(partition).is_some_and(|before| {
            now.end < before.end || (before.committed.is_some() && now.committed.is_none())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(end: Offset, committed: Option<Offset>) -> HashMap<Partition, PartitionOffsets> {
        HashMap::from([(0, PartitionOffsets { start: 0, end, committed, is_unowned: false })])
    }

    #[test]
    fn id_of_a_deleted_topic_does_not_return() {
        let mut identity = Identity::default();
        for id in [None, Some("a"), None, Some("a")] {
            assert_eq!(identity.compare(id), Seen::Same, "{id:?}");
            identity.note(id, &offsets(1, None));
        }
        assert_eq!(identity.id(), Some("a"));
        assert_eq!(identity.compare(Some("b")), Seen::Replaced);
        identity.note(Some("b"), &offsets(1, None));
        assert_eq!(identity.compare(Some("a")), Seen::Deleted);
        assert_eq!(identity.compare(Some("b")), Seen::Same);
        for n in 0..2 * MAX_FORMER {
            identity.note(Some(&n.to_string()), &offsets(1, None));
        }
        assert_eq!(identity.former.len(), MAX_FORMER);
    }

    #[test]
    fn committed_and_delivered_records_of_a_deleted_topic_are_not_lost() {
        let mut identity = Identity::default();
        identity.note(Some("a"), &HashMap::new());
        assert_eq!(identity.lost(0, 0), 0, "there was no other topic");
        identity.note(Some("b"), &offsets(500, Some(480)));
        assert_eq!(identity.lost(0, 0), 20, "the group had committed");
        assert_eq!(identity.lost(0, 490), 10);
        assert_eq!(identity.lost(0, 510), 0);
        assert_eq!(identity.lost(1, 0), 0, "unknown");
        identity.note(Some("c"), &offsets(500, None));
        assert_eq!(identity.lost(0, 100), 400);
    }

    #[test]
    fn offsets_of_a_replaced_topic_are_doubted() {
        let before = offsets(500, Some(480));
        assert!(moved_back(&before, &offsets(3, Some(480))));
        assert!(moved_back(&before, &offsets(500, None)));
        assert!(!moved_back(&before, &offsets(500, Some(480))));
        assert!(!moved_back(&before, &HashMap::new()));
        assert!(!moved_back(&HashMap::new(), &before));
    }
}
