//! What the worker has done, and what keeps it from doing more: written by the
//! bulks, read by readiness and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::application::metrics::{Histogram, HistogramCounts};
use crate::domain::health::PartState;
use crate::domain::queue::Partition;

/// Codes of dead letters that are counted one by one; the rest together.
const MAX_CODES: usize = 32;

/// The code under which the rest is counted.
const OTHER_CODES: &str = "other";

/// The worker's counters and its problem, if it has one.
#[derive(Debug, Default)]
pub struct WorkerStatus {
    consumed: AtomicU64,
    stored: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    dead_letters: Mutex<BTreeMap<String, u64>>,
    skipped: AtomicU64,
    released: AtomicU64,
    expired: AtomicU64,
    /// Records that were sent off in bulks.
    dispatched: AtomicU64,
    /// Records known to be stored, also those of bulks that are not settled.
    known_stored: AtomicU64,
    stored_after: Histogram,
    lag: Mutex<Vec<(Partition, u64)>>,
    retention_left: Mutex<Vec<(Partition, Duration)>>,
    problem: Mutex<Option<String>>,
}

/// The counters at one moment: `consumed` is `stored`, `duplicates`,
/// `dead_letters`, `skipped`, `released` and `in_flight` together.
#[derive(Debug, Clone)]
pub struct WorkerCounts {
    /// Records that the queue delivered.
    pub consumed: u64,
    /// Records that this process stored.
    pub stored: u64,
    /// Records whose id was stored before.
    pub duplicates: u64,
    /// Those of the duplicates that said something else.
    pub conflicts: u64,
    /// Records that became dead letters, by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// Records without a value.
    pub skipped: u64,
    /// Records dropped unsettled, since their partition went to another.
    pub released: u64,
    /// Records whose fate is open.
    pub in_flight: u64,
    /// Records that the queue lost before they were consumed.
    pub expired: u64,
    /// How long it took from the receipt of an event until it was stored.
    pub stored_after: HistogramCounts,
    /// Records of each partition past the committed offset, as last seen.
    pub lag: Vec<(Partition, u64)>,
    /// How long at least it takes until the queue deletes records of each
    /// partition that were not consumed; empty where it does not.
    pub retention_left: Vec<(Partition, Duration)>,
}

/// What became of the records of one bulk.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stored: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
    pub(super) skipped: u64,
    /// The code of each dead letter.
    pub(super) dead_letters: Vec<String>,
}

impl WorkerStatus {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> WorkerCounts {
        // Acquire, and the fates before what was consumed: each record was
        // consumed before its fate was known.
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let (stored, duplicates) = (get(&self.stored), get(&self.duplicates));
        let (skipped, released) = (get(&self.skipped), get(&self.released));
        let dead_letters = self.dead_letters.lock().clone();
        let settled = stored + duplicates + skipped + dead_letters.values().sum::<u64>();
        let consumed = get(&self.consumed);
        WorkerCounts {
            consumed,
            stored,
            duplicates,
            conflicts: get(&self.conflicts),
            dead_letters,
            skipped,
            released,
            in_flight: consumed.saturating_sub(settled + released),
            expired: get(&self.expired),
            stored_after: self.stored_after.counts(),
            lag: self.lag.lock().clone(),
            retention_left: self.retention_left.lock().clone(),
        }
    }

    /// Whether the worker can store, as readiness shows it.
    #[must_use]
    pub fn state(&self) -> PartState {
        match &*self.problem.lock() {
            None => PartState::Up,
            Some(problem) => PartState::Down(problem.clone()),
        }
    }

    /// Records that are known to be stored, by this process or before.
    pub(super) fn known_stored(&self) -> u64 {
        self.known_stored.load(Ordering::Relaxed)
    }

    pub(super) fn note_known_stored(&self, records: u64) {
        self.known_stored.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn note_stored_after(&self, took: Duration) {
        self.stored_after.observe(took, 1);
    }

    pub(super) fn count_consumed(&self) {
        self.consumed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_dispatched(&self, records: usize) {
        self.dispatched.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Counts a bulk, once it is settled.
    pub(super) fn count_settled(&self, tally: Tally) {
        self.stored.fetch_add(tally.stored, Ordering::Release);
        self.duplicates.fetch_add(tally.duplicates, Ordering::Release);
        self.conflicts.fetch_add(tally.conflicts, Ordering::Release);
        self.skipped.fetch_add(tally.skipped, Ordering::Release);
        let mut by_code = self.dead_letters.lock();
        for code in tally.dead_letters {
            let has_room = by_code.len() < MAX_CODES || by_code.contains_key(&code);
            let code = if has_room { code } else { OTHER_CODES.to_owned() };
            *by_code.entry(code).or_default() += 1;
        }
    }

    pub(super) fn count_released(&self, records: u64) {
        self.released.fetch_add(records, Ordering::Release);
    }

    /// Counts what a worker that broke down had gathered and not sent off as
    /// given back: it is delivered again. To be called by the worker's thread,
    /// which alone writes what is read here, while nothing is gathered.
    pub(super) fn release_gathered(&self) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let known = get(&self.dispatched) + get(&self.released);
        self.count_released(get(&self.consumed).saturating_sub(known));
    }

    pub(super) fn count_expired(&self, records: u64) {
        self.expired.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn set_retention_left(&self, left: Vec<(Partition, Duration)>) {
        *self.retention_left.lock() = left;
    }

    pub(super) fn set_lag(&self, lag: Vec<(Partition, u64)>) {
        *self.lag.lock() = lag;
    }

    /// Answers whether that is news.
    pub(super) fn set_problem(&self, problem: Option<String>) -> bool {
        let mut current = self.problem.lock();
        let is_news = *current != problem;
        if problem.is_none() && is_news {
            tracing::info!("storing works again");
        }
        *current = problem;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_past_the_cap_are_counted_together() {
        let status = WorkerStatus::default();
        for n in 0..40 {
            status.count_consumed();
            let dead_letters = vec![format!("code_{n}")];
            status.count_settled(Tally { dead_letters, ..Tally::default() });
        }
        let counts = status.counts();
        assert_eq!(counts.dead_letters.len(), MAX_CODES + 1);
        assert_eq!(counts.dead_letters[OTHER_CODES], 8);
        assert_eq!(counts.in_flight, 0);
    }

    #[test]
    fn what_a_broken_worker_had_gathered_is_given_back() {
        let status = WorkerStatus::default();
        for _ in 0..5 {
            status.count_consumed();
        }
        status.count_dispatched(2);
        status.release_gathered();
        let counts = status.counts();
        assert_eq!((counts.released, counts.in_flight), (3, 2));
        status.count_settled(Tally { stored: 2, ..Tally::default() });
        assert_eq!(status.counts().in_flight, 0);
    }
}
