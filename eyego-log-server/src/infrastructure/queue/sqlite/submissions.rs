//! What waits for the writer.
//!
//! Not a channel of the standard library: that wakes the writer for the first
//! request it finds, and a sync of the disk for one is as dear as for sixty.
//! Here the writer says for how many it waits, and sleeps until they are there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Job;

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// The writer sleeps until there are so many; 0: it is at work.
    wanted: usize,
    outboxes: usize,
    /// The writer is gone.
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

/// The callers' end.
pub(super) struct Outbox {
    shared: Arc<Shared>,
}

/// The writer's end.
pub(super) struct Inbox {
    shared: Arc<Shared>,
}

/// Two ends of one box.
pub(super) fn open() -> (Outbox, Inbox) {
    let shared = Arc::new(Shared::default());
    shared.state.lock().outboxes = 1;
    (Outbox { shared: Arc::clone(&shared) }, Inbox { shared })
}

impl Outbox {
    /// Hands a job to the writer; answers whether there is one.
    #[must_use]
    pub(super) fn send(&self, job: Job) -> bool {
        let mut state = self.shared.state.lock();
        if state.is_closed {
            return false;
        }
        let is_urgent = !matches!(job, Job::Append(_));
        state.jobs.push(job);
        let is_awaited = state.wanted > 0 && (is_urgent || state.jobs.len() >= state.wanted);
        if is_awaited {
            state.wanted = 0;
            drop(state);
            self.shared.arrived.notify_one();
        }
        true
    }
}

impl Clone for Outbox {
    fn clone(&self) -> Self {
        self.shared.state.lock().outboxes += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.outboxes -= 1;
        let is_last = state.outboxes == 0;
        drop(state);
        if is_last {
            self.shared.arrived.notify_one();
        }
    }
}

impl Inbox {
    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.shared.state.lock().jobs.len()
    }

    /// Takes all jobs, once there are `wanted` of them or `patience` is over;
    /// there may be none then. `None`: nobody is left who could send one.
    pub(super) fn take(&self, wanted: usize, patience: Option<Duration>) -> Option<Vec<Job>> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut state = self.shared.state.lock();
        while state.jobs.len() < wanted {
            if state.outboxes == 0 {
                if state.jobs.is_empty() {
                    return None;
                }
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            state.wanted = wanted;
            match left {
                Some(left) => drop(self.shared.arrived.wait_for(&mut state, left)),
                None => self.shared.arrived.wait(&mut state),
            }
            // Whoever woke us saw what we want: enough, or something urgent.
            let was_woken = state.wanted == 0;
            if was_woken && !state.jobs.is_empty() {
                break;
            }
        }
        state.wanted = 0;
        Some(std::mem::take(&mut state.jobs))
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        // Their callers hear that nobody answers.
        state.jobs.clear();
    }
}
