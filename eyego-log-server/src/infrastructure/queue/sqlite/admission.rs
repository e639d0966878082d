//! Decides when to refuse records so that accepted ones are readable within two
//! seconds (ADR 0013). Pure: positions and the time are arguments.
//!
//! A new record waits for the backlog to be stored, so its expected wait is the
//! backlog divided by the rate at which the worker commits.

use std::time::{Duration, Instant};

use super::positions::Positions;
use crate::domain::position::Offset;

/// Longest expected wait at which records are accepted. The rest of the two
/// seconds covers the worker's linger, its commit interval and errors of the
/// estimate. It exceeds the `Retry-After` of 1 s, so that the worker has records
/// to store until refused clients retry.
const MAX_WAIT: Duration = Duration::from_millis(1200);

/// A backlog up to this is always accepted, and a worker with at least this
/// much left is busy: one bulk for the embedded store.
const MIN_BACKLOG: u64 = 16_000;

/// Without a commit for this long, storing has failed rather than slowed down.
/// Then the queue accepts records up to its size limit.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time constant of the moving average of the rate, in seconds.
const SMOOTHING: f64 = 1.0;

/// Rate assumed until a busy worker has committed twice, in records per second.
/// The embedded store reaches more on two cores.
const ASSUMED_RATE: f64 = 60_000.0;

/// Estimates how long a new record waits until it is stored.
#[derive(Debug)]
pub(super) struct Admission {
    /// Moving average of the rate at which a busy worker commits, in records
    /// per second.
    rate: f64,
    last_commit: Option<Commit>,
}

impl Default for Admission {
    fn default() -> Self {
        Self { rate: ASSUMED_RATE, last_commit: None }
    }
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    at: Instant,
    committed: Offset,
    backlog: u64,
}

impl Admission {
    /// Updates the estimate after a transaction.
    pub(super) fn observe(&mut self, positions: Positions, now: Instant) {
        let Positions { committed, .. } = positions;
        let commit = Commit { at: now, committed, backlog: positions.backlog() };
        let Some(last) = self.last_commit else {
            self.last_commit = Some(commit);
            return;
        };
        let elapsed = now.saturating_duration_since(last.at).as_secs_f64();
        let records = u32::try_from(committed - last.committed).unwrap_or(0);
        if records == 0 || elapsed <= 0.0 {
            return;
        }
        self.last_commit = Some(commit);
        let rate = f64::from(records) / elapsed;
        // A worker that ran out of records could have committed more: such an
        // interval is only a lower bound of the rate.
        let was_busy = last.backlog.min(commit.backlog) >= MIN_BACKLOG;
        if was_busy || rate > self.rate {
            let weight = 1.0 - (-elapsed / SMOOTHING).exp();
            self.rate = (rate - self.rate).mul_add(weight, self.rate);
        }
    }

    /// Returns the expected wait behind this many records if it is too long to
    /// accept more.
    ///
    /// Returns `None` before the first observation and while storing has stalled.
    pub(super) fn excessive_wait(&self, records: u64, now: Instant) -> Option<Duration> {
        let last_commit = self.last_commit?.at;
        let is_stalled = now.saturating_duration_since(last_commit) > STALL_TIMEOUT;
        if records <= MIN_BACKLOG || is_stalled {
            return None;
        }
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        let wait = Duration::try_from_secs_f64(f64::from(records) / self.rate);
        let wait = wait.unwrap_or(Duration::MAX);
        (wait > MAX_WAIT).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

    /// A queue whose worker stores at a fixed rate, in steps of one millisecond.
    struct Simulation {
        admission: Admission,
        start: Instant,
        millis: u32,
        positions: Positions,
        /// Stored records, and a thousandth of a record per unit of `rest`.
        stored: Offset,
        rest: i64,
    }

    impl Simulation {
        fn new() -> Self {
            let start = Instant::now();
            let positions = Positions { end: 1, committed: 1 };
            let mut admission = Admission::default();
            admission.observe(positions, start);
            Self { admission, start, millis: 0, positions, stored: 1, rest: 0 }
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_millis(self.millis.into())
        }

        fn is_refused(&self) -> bool {
            self.admission.excessive_wait(self.positions.backlog(), self.now()).is_some()
        }

        /// Runs for one millisecond with these rates, in records per second.
        /// Returns the number of refused records.
        fn step(&mut self, arrivals: i64, store_rate: i64) -> i64 {
            let per_step = arrivals / 1000;
            let refused = if self.is_refused() { per_step } else { 0 };
            self.positions.end += per_step - refused;
            self.rest += store_rate;
            self.stored = (self.stored + self.rest / 1000).min(self.positions.end);
            self.rest %= 1000;
            self.millis += 1;
            if u128::from(self.millis) % COMMIT_INTERVAL.as_millis() == 0 {
                self.positions.committed = self.stored;
            }
            self.admission.observe(self.positions, self.now());
            refused
        }
    }

    proptest! {
        #[test]
        fn accepted_records_wait_less_than_two_seconds_in_steady_overload(
            store_rate in 20_000..300_000_i64,
            overload in 101..1_000_i64,
        ) {
            let arrivals = store_rate * overload / 100;
            let mut queue = Simulation::new();
            let mut refused = 0;
            for _ in 0..10_000 {
                refused += queue.step(arrivals, store_rate);
                let wait = (queue.positions.end - queue.stored) * 1000 / store_rate;
                // A store far from the assumed rate needs some commits.
                let is_warm = queue.millis > 2_500;
                prop_assert!(!is_warm || wait < 2_000, "{wait} ms at {} ms", queue.millis);
            }
            let accepted = queue.positions.end;
            prop_assert!(accepted >= store_rate * 9, "{accepted} of {store_rate}/s in 10 s");
            prop_assert!(overload < 130 || refused > 0);
        }

        #[test]
        fn load_below_the_store_rate_is_never_refused(
            store_rate in 20_000..300_000_i64,
            load in 1..95_i64,
            burst in 0..16_000_i64,
        ) {
            let mut queue = Simulation::new();
            for step in 0..5_000 {
                if step == 1_000 {
                    queue.positions.end += burst;
                }
                prop_assert_eq!(queue.step(store_rate * load / 100, store_rate), 0);
            }
        }

        #[test]
        fn small_backlog_is_never_refused(
            commits in prop::collection::vec((0..1_000_u64, 0..100_000_i64, 0..100_000_i64), 0..50),
            records in 0..=MIN_BACKLOG,
        ) {
            let mut admission = Admission::default();
            let mut now = Instant::now();
            let mut positions = Positions { end: 1, committed: 1 };
            for (millis, appended, committed) in commits {
                now += Duration::from_millis(millis);
                positions.end += appended;
                positions.committed = (positions.committed + committed).min(positions.end);
                admission.observe(positions, now);
                prop_assert_eq!(admission.excessive_wait(records, now), None);
            }
        }
    }

    #[test]
    fn assumed_rate_limits_the_backlog_until_the_rate_is_known() {
        let start = Instant::now();
        let mut admission = Admission::default();
        let positions = Positions { end: 10_000_000, committed: 1 };
        assert_eq!(admission.excessive_wait(positions.backlog(), start), None);
        admission.observe(positions, start);
        assert!(admission.excessive_wait(positions.backlog(), start).is_some());
        assert_eq!(admission.excessive_wait(60_000, start), None);
        let stalled = start + STALL_TIMEOUT + COMMIT_INTERVAL;
        assert_eq!(admission.excessive_wait(positions.backlog(), stalled), None);
    }

    #[test]
    fn estimate_follows_a_store_that_becomes_slower_or_faster() {
        let mut queue = Simulation::new();
        for store_rate in [100_000, 20_000, 200_000] {
            for _ in 0..10_000 {
                queue.step(1_000_000, store_rate);
            }
            let wait = (queue.positions.end - queue.stored) * 1000 / store_rate;
            assert!((800..1_500).contains(&wait), "{wait} ms at {store_rate}/s");
        }
    }

    #[test]
    fn records_are_accepted_again_when_storing_stalls() {
        let mut queue = Simulation::new();
        for _ in 0..5_000 {
            queue.step(200_000, 100_000);
        }
        while !queue.is_refused() {
            queue.step(200_000, 100_000);
        }
        let stalled = queue.now() + STALL_TIMEOUT + COMMIT_INTERVAL;
        assert_eq!(queue.admission.excessive_wait(queue.positions.backlog(), stalled), None);
    }
}
