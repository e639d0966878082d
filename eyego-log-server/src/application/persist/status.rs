//! The worker's counters and its current problems: written by the worker and its
//! bulks, read by readiness and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::application::metrics::{Histogram, HistogramCounts};
use crate::application::removal::SkipReason;
use crate::domain::health::PartState;
use crate::domain::position::Partition;
use crate::domain::repeated::Repeated;

/// Maximum number of dead-letter codes with a counter of their own.
const MAX_CODES: usize = 32;

/// The code under which all further dead letters are counted.
const OTHER_CODES: &str = "other";

/// The worker's counters and its current problems, if any.
#[derive(Debug, Default)]
pub struct WorkerStatus {
    consumed: AtomicU64,
    stored: AtomicU64,
    duplicates: AtomicU64,
    dead_letters: Mutex<BTreeMap<String, u64>>,
    skipped: [AtomicU64; 3],
    released: AtomicU64,
    expired: AtomicU64,
    /// Records handed to a bulk.
    dispatched: AtomicU64,
    /// Records known to be stored, including those of unsettled bulks.
    known_stored: AtomicU64,
    stored_after: Histogram,
    lag: Mutex<Vec<(Partition, u64)>>,
    retention_left: Mutex<Vec<(Partition, Duration)>>,
    retention_warning: Mutex<Option<String>>,
    problem: Mutex<Problem>,
    /// Why the worker does not run.
    failure: Mutex<Option<String>>,
    /// Warnings of the worker and its bulks.
    repeated: Mutex<Repeated>,
}

#[derive(Debug, Default)]
struct Problem {
    reason: Option<String>,
    /// Whether a log line has reported a problem since events could be stored.
    is_logged: bool,
}

/// Snapshot of the counters.
///
/// `consumed` equals `stored + duplicates + released + in_flight` plus the sums of
/// `skipped` and `dead_letters`.
#[derive(Debug, Clone)]
pub struct WorkerCounts {
    /// Records delivered by the queue.
    pub consumed: u64,
    /// Records stored by this process.
    pub stored: u64,
    /// Records of events that were already stored.
    pub duplicates: u64,
    /// Records that became dead letters, by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// Records that are not stored although they could be, by reason.
    pub skipped: Skipped,
    /// Records dropped unsettled because their partition moved to another
    /// consumer or the worker failed. The queue delivers them again.
    pub released: u64,
    /// Records consumed but not yet settled.
    pub in_flight: u64,
    /// Records that the queue deleted before they were consumed.
    pub expired: u64,
    /// Time from receiving an event until it was stored.
    pub stored_after: HistogramCounts,
    /// Records past the committed offset of each partition, as last observed.
    pub lag: Vec<(Partition, u64)>,
    /// Minimum time until the queue deletes unconsumed records of each
    /// partition. Empty if the queue does not delete them.
    pub retention_left: Vec<(Partition, Duration)>,
}

/// Numbers of skipped records, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Records without a value.
    pub no_value: u64,
    /// Events older than their retention.
    pub expired: u64,
    /// Events of users that were erased after the events were received.
    pub erased: u64,
}

impl Skipped {
    pub(super) fn add(&mut self, reason: SkipReason) {
        *match reason {
            SkipReason::NoValue => &mut self.no_value,
            SkipReason::Expired => &mut self.expired,
            SkipReason::Erased => &mut self.erased,
        } += 1;
    }

    fn sum(self) -> u64 {
        self.no_value + self.expired + self.erased
    }

    fn as_array(self) -> [u64; 3] {
        [self.no_value, self.expired, self.erased]
    }

    fn from_array([no_value, expired, erased]: [u64; 3]) -> Self {
        Self { no_value, expired, erased }
    }
}

/// Outcomes of the records of one bulk.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stored: u64,
    pub(super) duplicates: u64,
    pub(super) skipped: Skipped,
    /// Code of each dead letter.
    pub(super) dead_letters: Vec<String>,
}

impl WorkerStatus {
    /// Returns a snapshot of the counters.
    #[must_use]
    pub fn counts(&self) -> WorkerCounts {
        // Reads the outcomes before `consumed`: a record is consumed before it
        // has an outcome, so that this order never sees more outcomes than
        // consumed records.
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let (stored, duplicates) = (get(&self.stored), get(&self.duplicates));
        let skipped = Skipped::from_array(self.skipped.each_ref().map(get));
        let released = get(&self.released);
        let dead_letters = self.dead_letters.lock().clone();
        let settled = stored + duplicates + skipped.sum() + dead_letters.values().sum::<u64>();
        let consumed = get(&self.consumed);
        WorkerCounts {
            consumed,
            stored,
            duplicates,
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

    /// Returns whether the store accepts the worker's events, for readiness.
    #[must_use]
    pub fn store_state(&self) -> PartState {
        if let Some(problem) = &self.problem.lock().reason {
            return PartState::Down(problem.clone());
        }
        let warning = self.retention_warning.lock().clone();
        warning.map_or(PartState::Up, PartState::Warning)
    }

    /// Returns whether the worker itself runs, for readiness.
    #[must_use]
    pub fn worker_state(&self) -> PartState {
        self.failure.lock().clone().map_or(PartState::Up, PartState::Down)
    }

    /// Returns the number of records known to be stored, by this process or
    /// earlier.
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

    /// Counts the outcomes of a settled bulk.
    pub(super) fn count_settled(&self, tally: Tally) {
        self.stored.fetch_add(tally.stored, Ordering::Release);
        self.duplicates.fetch_add(tally.duplicates, Ordering::Release);
        for (counter, records) in self.skipped.iter().zip(tally.skipped.as_array()) {
            counter.fetch_add(records, Ordering::Release);
        }
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

    /// Counts the records that a failed worker had gathered but not dispatched
    /// as released: the queue delivers them again.
    ///
    /// Must be called by the worker's thread, the only writer of the counters
    /// read here, before it gathers new records.
    pub(super) fn release_gathered(&self) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let known = get(&self.dispatched) + get(&self.released);
        self.count_released(get(&self.consumed).saturating_sub(known));
    }

    pub(super) fn count_expired(&self, records: u64) {
        self.expired.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn set_retention_left(
        &self,
        retention: Option<Duration>,
        left: Vec<(Partition, Duration)>,
    ) {
        *self.retention_warning.lock() = retention_warning(retention, &left);
        *self.retention_left.lock() = left;
    }

    pub(super) fn set_lag(&self, lag: Vec<(Partition, u64)>) {
        *self.lag.lock() = lag;
    }

    /// Sets the reason the worker does not run, or `None` if it does.
    pub(super) fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock() = failure;
    }

    /// Replaces the current problem, and returns whether to log it.
    pub(super) fn set_problem(&self, reason: Option<String>) -> bool {
        let mut problem = self.problem.lock();
        if problem.reason == reason {
            return false;
        }
        let is_due =
            reason.is_some() && self.repeated().note("cannot store", 1, Instant::now()).is_some();
        if reason.is_none() && std::mem::take(&mut problem.is_logged) {
            tracing::info!("events can be stored again");
        }
        problem.is_logged |= is_due;
        problem.reason = reason;
        is_due
    }

    /// Returns the counts of warnings that are logged at most once in 10 s.
    pub(super) fn repeated(&self) -> MutexGuard<'_, Repeated> {
        self.repeated.lock()
    }

    /// Logs how often a warning was repeated since its last line.
    pub(super) fn log_repeated(&self) {
        for (what, count) in self.repeated().take_due(Instant::now()) {
            tracing::warn!(what, count, "a warning was repeated");
        }
    }
}

/// Describes the partition whose records are deleted first, if less than a quarter
/// of the retention is left.
fn retention_warning(
    retention: Option<Duration>,
    left: &[(Partition, Duration)],
) -> Option<String> {
    let (partition, left) = left.iter().min_by_key(|(_, left)| *left)?;
    (*left < retention? / 4).then(|| {
        let left = left.as_secs();
        format!("the queue deletes events of partition {partition} that are not stored in {left} s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_that_runs_out_is_a_warning() {
        let status = WorkerStatus::default();
        let seconds = Duration::from_secs;
        status.set_retention_left(Some(seconds(100)), vec![(0, seconds(90)), (1, seconds(25))]);
        assert_eq!(status.store_state(), PartState::Up);
        status.set_retention_left(Some(seconds(100)), vec![(0, seconds(90)), (1, seconds(24))]);
        let PartState::Warning(warning) = status.store_state() else {
            panic!("{:?}", status.store_state())
        };
        assert!(warning.contains("partition 1") && warning.contains("in 24 s"), "{warning}");
        status.set_retention_left(None, Vec::new());
        assert_eq!(status.store_state(), PartState::Up);
    }

    #[test]
    fn codes_past_the_limit_are_counted_together() {
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
    fn gathered_records_of_a_failed_worker_count_as_released() {
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
