//! The counters of removal: written by the remover, read by metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eyego_log_core::Timestamp;
use parking_lot::Mutex;

/// What the remover of this process has done.
#[derive(Debug, Default)]
pub struct RemovalStatus {
    expired: AtomicU64,
    erased: AtomicU64,
    erased_dead_letters: AtomicU64,
    errors: AtomicU64,
    observed: Mutex<Observed>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Observed {
    has_lease: bool,
    running: u64,
    last_pass: Option<Duration>,
    oldest: Option<Timestamp>,
}

/// Snapshot of the counters.
#[derive(Debug, Clone, Copy)]
pub struct RemovalCounts {
    /// Events deleted because their retention passed.
    pub expired: u64,
    /// Events deleted because their user was erased.
    pub erased: u64,
    /// Dead letters deleted because their user was erased.
    pub erased_dead_letters: u64,
    /// Attempts to delete that failed. Each is repeated.
    pub errors: u64,
    /// Whether this process deletes.
    pub has_lease: bool,
    /// Erasures that are not completed.
    pub running: u64,
    /// How long the last deletion of expired events took.
    pub last_pass: Option<Duration>,
    /// Timestamp of the oldest stored event.
    pub oldest: Option<Timestamp>,
}

impl RemovalStatus {
    /// Returns a snapshot.
    #[must_use]
    pub fn counts(&self) -> RemovalCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Observed { has_lease, running, last_pass, oldest } = *self.observed.lock();
        RemovalCounts {
            expired: get(&self.expired),
            erased: get(&self.erased),
            erased_dead_letters: get(&self.erased_dead_letters),
            errors: get(&self.errors),
            has_lease,
            running,
            last_pass,
            oldest,
        }
    }

    pub(super) fn count_expired(&self, events: u64) {
        self.expired.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn count_erased(&self, events: u64) {
        self.erased.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn count_erased_dead_letter(&self) {
        self.erased_dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_lease(&self, has_lease: bool) {
        self.observed.lock().has_lease = has_lease;
    }

    pub(super) fn has_lease(&self) -> bool {
        self.observed.lock().has_lease
    }

    pub(super) fn set_running(&self, running: usize) {
        self.observed.lock().running = running as u64;
    }

    pub(super) fn set_pass(&self, took: Duration, oldest: Option<Timestamp>) {
        let mut observed = self.observed.lock();
        (observed.last_pass, observed.oldest) = (Some(took), oldest);
    }
}
