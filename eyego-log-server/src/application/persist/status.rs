//! What the worker has done, and what keeps it from doing more: written by the
//! bulks, read by readiness and metrics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::health::PartState;

/// The worker's counters and its problem, if it has one.
#[derive(Debug, Default)]
pub struct WorkerStatus {
    consumed: AtomicU64,
    stored: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    dead_letters: AtomicU64,
    skipped: AtomicU64,
    given_back: AtomicU64,
    expired: AtomicU64,
    problem: Mutex<Option<String>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Records that the queue delivered.
    pub consumed: u64,
    /// Records that this process stored.
    pub stored: u64,
    /// Records whose id was stored before.
    pub duplicates: u64,
    /// Those of the duplicates that said something else.
    pub conflicts: u64,
    /// Records that became dead letters.
    pub dead_letters: u64,
    /// Records without a value.
    pub skipped: u64,
    /// Records dropped unsettled, since their partition went to another.
    pub given_back: u64,
    /// Records that the queue lost before they were consumed.
    pub expired: u64,
}

impl WorkerStatus {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> WorkerCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerCounts {
            consumed: get(&self.consumed),
            stored: get(&self.stored),
            duplicates: get(&self.duplicates),
            conflicts: get(&self.conflicts),
            dead_letters: get(&self.dead_letters),
            skipped: get(&self.skipped),
            given_back: get(&self.given_back),
            expired: get(&self.expired),
        }
    }

    /// Whether the worker can store, as readiness shows it.
    #[must_use]
    pub fn state(&self) -> PartState {
        match &*self.problem() {
            None => PartState::Up,
            Some(problem) => PartState::Down(problem.clone()),
        }
    }

    /// Records that are known to be stored, by this process or before.
    pub(super) fn stored_total(&self) -> u64 {
        self.stored.load(Ordering::Relaxed) + self.duplicates.load(Ordering::Relaxed)
    }

    pub(super) fn count_consumed(&self) {
        self.consumed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_stored(&self, stored: u64, duplicates: u64) {
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
    }

    pub(super) fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_dead_letter(&self) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_given_back(&self, records: u64) {
        self.given_back.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn count_expired(&self, records: u64) {
        self.expired.fetch_add(records, Ordering::Relaxed);
    }

    /// Answers whether that is news.
    pub(super) fn set_problem(&self, problem: Option<String>) -> bool {
        let mut current = self.problem();
        let is_news = *current != problem;
        if problem.is_none() && is_news {
            tracing::info!("storing works again");
        }
        *current = problem;
        is_news
    }

    fn problem(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // A panic of another holder leaves a whole value: it is only replaced.
        self.problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
