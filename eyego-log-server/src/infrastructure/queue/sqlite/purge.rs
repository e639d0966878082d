//! Removes the bytes of consumed records from the queue's file.
//!
//! Deleted chunks are not overwritten one by one, because that would double the
//! writes of the queue. Their pages are used again by later chunks, and once a
//! minute the file is written anew, which is fast while few records wait in it
//! (ADR 0033).

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::rows::Extent;
use crate::infrastructure::embedded;

/// Time between two purges.
const INTERVAL: Duration = Duration::from_secs(60);

/// Maximum size of the records in the file. While more wait to be stored, the purge
/// is postponed.
const MAX_BYTES: u64 = 4 << 20;

/// When to purge the file.
#[derive(Debug)]
pub(super) struct Purge {
    /// Whether the file can contain bytes of consumed records. An earlier process
    /// may have left some.
    is_needed: bool,
    due: Instant,
}

impl Purge {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_needed: true, due: now + INTERVAL }
    }

    /// Records that chunks were deleted.
    pub(super) fn note_deleted(&mut self) {
        self.is_needed = true;
    }

    /// Returns how long to wait for the next purge, or `None` if it is not needed.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.is_needed.then(|| self.due.saturating_duration_since(now))
    }

    /// Purges the file if it is due and few records wait in it.
    pub(super) fn run(&mut self, connection: &Connection, extent: &Extent, now: Instant) {
        if self.wait(now) != Some(Duration::ZERO) {
            return;
        }
        self.due = now + INTERVAL;
        if is_busy(extent) {
            return;
        }
        match purge(connection) {
            Ok(()) => self.is_needed = false,
            Err(error) => tracing::warn!(%error, "cannot purge the queue's file; retrying"),
        }
    }
}

fn is_busy(extent: &Extent) -> bool {
    extent.used_bytes > MAX_BYTES || extent.has_deletable()
}

fn purge(connection: &Connection) -> rusqlite::Result<()> {
    embedded::rewrite(connection)?;
    embedded::empty_log(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_is_due_once_a_minute_and_only_after_deletions() {
        let start = Instant::now();
        let connection = Connection::open_in_memory().unwrap();
        let mut purge = Purge::new(start);
        assert_eq!(purge.wait(start), Some(INTERVAL), "of an earlier process");
        purge.run(&connection, &Extent::default(), start);
        assert_eq!(purge.wait(start), Some(INTERVAL), "not due yet");
        purge.run(&connection, &Extent::default(), start + INTERVAL);
        assert_eq!(purge.wait(start + INTERVAL), None);
        purge.note_deleted();
        assert_eq!(purge.wait(start + INTERVAL), Some(INTERVAL));
        let mut extent = Extent::default();
        extent.used_bytes = MAX_BYTES + 1;
        purge.run(&connection, &extent, start + 2 * INTERVAL);
        assert_eq!(purge.wait(start + 2 * INTERVAL), Some(INTERVAL), "postponed");
    }
}
