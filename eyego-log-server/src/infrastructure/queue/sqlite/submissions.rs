//! The channel from callers to the writer.
//!
//! A standard channel would wake the writer for the first job, and syncing the
//! disk for one job costs as much as for sixty. Here the writer states how many
//! jobs it waits for and sleeps until they have arrived.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Job;

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Number of jobs the writer waits for; 0 if it is not waiting.
    wanted: usize,
    submitters: usize,
    /// The writer has stopped.
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

/// The sender half, used by callers.
pub(super) struct Submitter {
    shared: Arc<Shared>,
}

/// The receiver half, used by the writer.
pub(super) struct Submissions {
    shared: Arc<Shared>,
}

/// Creates both halves of the channel.
pub(super) fn channel() -> (Submitter, Submissions) {
    let shared = Arc::new(Shared::default());
    shared.state.lock().submitters = 1;
    (Submitter { shared: Arc::clone(&shared) }, Submissions { shared })
}

impl Submitter {
    /// Passes a job to the writer. Returns `false` if the writer has stopped.
    #[must_use]
    pub(super) fn submit(&self, job: Job) -> bool {
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

    /// Returns `true` if the writer has taken all jobs.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shared.state.lock().jobs.is_empty()
    }
}

impl Clone for Submitter {
    fn clone(&self) -> Self {
        self.shared.state.lock().submitters += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.submitters -= 1;
        let is_last = state.submitters == 0;
        drop(state);
        if is_last {
            self.shared.arrived.notify_one();
        }
    }
}

impl Submissions {
    /// Returns the number of jobs that have not been taken.
    pub(super) fn len(&self) -> usize {
        self.shared.state.lock().jobs.len()
    }

    /// Waits for `minimum` jobs, an urgent job or the end of `timeout`, and
    /// takes all jobs; there may be none.
    ///
    /// Returns `None` if there are no jobs and no submitters left.
    pub(super) fn take(&self, minimum: usize, timeout: Option<Duration>) -> Option<Vec<Job>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.shared.state.lock();
        while state.jobs.len() < minimum {
            if state.submitters == 0 {
                if state.jobs.is_empty() {
                    return None;
                }
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            state.wanted = minimum;
            match left {
                Some(left) => drop(self.shared.arrived.wait_for(&mut state, left)),
                None => self.shared.arrived.wait(&mut state),
            }
            // A submitter resets `wanted` if there are enough jobs or one is urgent.
            let was_woken = state.wanted == 0;
            if was_woken && !state.jobs.is_empty() {
                break;
            }
        }
        state.wanted = 0;
        Some(std::mem::take(&mut state.jobs))
    }
}

impl Drop for Submissions {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        // Drops the reply channels, which tells the callers that the queue is closed.
        state.jobs.clear();
    }
}
