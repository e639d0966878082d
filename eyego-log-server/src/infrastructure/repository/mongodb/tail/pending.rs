//! Changes that tails have not been shown yet.

use std::collections::HashMap;

use eyego_log_core::{LogEntry, LogId};

use super::token::{CollectionTag, Position};
use crate::domain::read::PageItem as _;
use crate::domain::tail::TailedEvent;
use crate::infrastructure::repository::feed::Feed;

/// Size at which changes are not collected any further, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Changes in their order.
#[derive(Default)]
pub(super) struct Pending {
    stored: Vec<(Position, LogEntry)>,
    /// Events that were removed after this many of `stored` were stored.
    removed: HashMap<LogId, usize>,
    /// The position of the last change.
    end: Option<Position>,
    bytes: usize,
}

impl Pending {
    pub(super) fn store(&mut self, position: Position, entry: LogEntry) {
        self.bytes += entry.json_bytes();
        self.end = Some(position.clone());
        self.stored.push((position, entry));
    }

    pub(super) fn remove(&mut self, position: Position, id: Option<LogId>) {
        self.end = Some(position);
        self.removed.extend(id.map(|id| (id, self.stored.len())));
    }

    /// Notes a position without a change.
    pub(super) fn reach(&mut self, position: Position) {
        self.end = Some(position);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// Applies the changes to `feed`. A tail that is shown an event is not shown any that
    /// was removed before it.
    pub(super) fn apply(&mut self, feed: &Feed<Position>, tag: CollectionTag) {
        let Self { stored, removed, end, .. } = std::mem::take(self);
        let Some(end) = end else { return };
        if !removed.is_empty() {
            feed.remove(|_, entry| removed.contains_key(&entry.id));
        }
        let stored = stored.into_iter().enumerate();
        let existing =
            stored.filter(|(n, (_, entry))| removed.get(&entry.id).is_none_or(|at| at <= n));
        feed.push(
            end,
            existing.map(|(_, (position, entry))| {
                let token = tag.token(&position);
                (position, TailedEvent::new(token, entry))
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eyego_log_core::{Action, LogQuery, Metadata, Timestamp, UserId};

    use super::*;

    fn entry(n: u8) -> LogEntry {
        LogEntry::new(
            LogId::from_bytes([n; 12]),
            UserId::new("u").unwrap(),
            Action::new("A").unwrap(),
            Timestamp::from_millis(0).unwrap(),
            Metadata::from_json("{}".to_owned()).unwrap(),
        )
    }

    #[tokio::test]
    async fn events_that_were_removed_are_not_shown_unless_they_were_stored_again() {
        let position = |n: u8| Position::from(format!("82{n:02}"));
        let id = |n: u8| Some(LogId::from_bytes([n; 12]));
        let tag = CollectionTag(7);
        let feed = Arc::new(Feed::new(position(0)));
        let mut tail = feed.subscribe(&LogQuery::default()).unwrap();
        let mut pending = Pending::default();
        for n in 1..=2 {
            pending.store(position(n), entry(n));
        }
        pending.apply(&feed, tag);
        pending.remove(position(3), id(1));
        pending.store(position(4), entry(4));
        pending.store(position(5), entry(5));
        pending.remove(position(6), id(4));
        pending.remove(position(7), id(5));
        pending.store(position(8), entry(5));
        pending.apply(&feed, tag);
        let shown = tail.next().await.unwrap().events;
        let shown: Vec<_> = shown.iter().map(|event| event.token.clone()).collect();
        assert_eq!(shown, [2, 8].map(|n| tag.token(&position(n))));
        assert_eq!(*feed.end(), *position(8));
    }
}
