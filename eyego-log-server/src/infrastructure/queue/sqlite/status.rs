//! State that the writer shares with callers and the subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::admission::Admission;
use super::positions::Positions;
use crate::domain::health::PartState;
use crate::domain::position::Offset;

/// The shared state. The writer updates it once per transaction.
#[derive(Debug)]
pub(super) struct Status {
    /// Name of the queue in log lines.
    name: &'static str,
    state: Mutex<State>,
    appended: Condvar,
    /// Records that were submitted to the writer and not yet handled.
    submitted: AtomicU64,
    /// Whether the file has refused records for lack of room since it was last
    /// less than nine tenths full.
    pub(super) is_full: AtomicBool,
    pub(super) has_subscriber: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    positions: Positions,
    admission: Admission,
    failure: Option<String>,
}

impl Status {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Mutex::default(),
            appended: Condvar::new(),
            submitted: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            has_subscriber: AtomicBool::new(false),
        }
    }

    pub(super) fn positions(&self) -> Positions {
        self.state.lock().positions
    }

    /// Publishes the positions after a durable transaction, and wakes a waiting
    /// subscription.
    pub(super) fn advance(&self, positions: Positions) {
        let mut state = self.state.lock();
        let has_grown = positions.end != state.positions.end;
        state.positions = positions;
        state.admission.observe(positions, Instant::now());
        drop(state);
        if has_grown {
            self.appended.notify_all();
        }
    }

    /// Returns how long a new record would wait to be stored, if that is too
    /// long to accept it.
    pub(super) fn excessive_wait(&self, now: Instant) -> Option<Duration> {
        let submitted = self.submitted.load(Ordering::Relaxed);
        let state = self.state.lock();
        state.admission.excessive_wait(state.positions.backlog() + submitted, now)
    }

    /// Waits until there is a record at or after this offset. Returns `false`
    /// if `timeout` passes first.
    pub(super) fn wait_for(&self, offset: Offset, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        let is_short = |state: &mut State| state.positions.end <= offset;
        self.appended.wait_while_for(&mut state, is_short, timeout);
        state.positions.end > offset
    }

    /// Publishes the reason why the file accepts no records, or `None` if it
    /// does.
    pub(super) fn report(&self, failure: Option<String>) {
        let mut state = self.state.lock();
        if state.failure == failure {
            return;
        }
        match &failure {
            Some(reason) => {
                tracing::error!(queue = self.name, reason, "the file does not accept records");
            }
            None => tracing::info!(queue = self.name, "the file accepts records again"),
        }
        state.failure = failure;
    }

    pub(super) fn state(&self) -> PartState {
        self.state.lock().failure.clone().map_or(PartState::Up, PartState::Down)
    }
}

/// Counts the records of an append as submitted until it is dropped.
pub(super) struct SubmittedRecords {
    status: Arc<Status>,
    records: u64,
}

impl SubmittedRecords {
    pub(super) fn new(status: Arc<Status>, records: usize) -> Self {
        let records = records as u64;
        status.submitted.fetch_add(records, Ordering::Relaxed);
        Self { status, records }
    }
}

impl Drop for SubmittedRecords {
    fn drop(&mut self) {
        self.status.submitted.fetch_sub(self.records, Ordering::Relaxed);
    }
}
