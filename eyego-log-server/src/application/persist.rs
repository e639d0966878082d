//! The worker: stores every record of the queue exactly once.
//!
//! One thread polls the subscription and gathers records into bulks. Each bulk is
//! settled by a task; several run concurrently. Offsets are committed up to the
//! first record that is not settled. A record is settled once it is stored, a
//! duplicate, a dead letter, or skipped: because it has no value, is expired, or its
//! user is erased.
//!
//! Delivery at least once plus unique ids in the store give exactly once: a crash
//! only repeats records whose ids are then recognised (ADR 0003).
//!
//! | file | contents |
//! |---|---|
//! | `batcher` | gathers records into bulks (pure) |
//! | `watermark` | the offset up to which a partition is settled (pure) |
//! | `retry` | back-off (pure) |
//! | `work` | the loop |
//! | `bulk` | settles one bulk: stores, retries, isolates bad records |
//! | `dead_letters` | writes the dead letters of a bulk |
//! | `assignment` | the assigned partitions and their bulks in flight |
//! | `status` | the counters and the current problem |

mod assignment;
mod batcher;
mod bulk;
mod dead_letters;
mod retry;
mod status;
mod watermark;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::bulk::Settler;
pub use self::status::{Skipped, WorkerCounts, WorkerStatus};
use self::work::WorkerLoop;
use crate::application::removal::GuardedStore;
use crate::domain::dead_letter::DeadLetters;
use crate::domain::subscription::Subscription;

/// After this long, a worker that was restarted counts as running again.
const PROOF: Duration = Duration::from_secs(10);

/// Options of the worker.
#[derive(Debug, Clone)]
pub struct PersistOptions {
    /// Name of the queue. Ids derived from a record's position include it.
    pub topic: String,
    /// Memory limit for gathered records and bulks in flight, in bytes, including
    /// the copies made while they are decoded and encoded.
    pub max_bytes: usize,
    /// Maximum number of records in a bulk.
    pub bulk_records: usize,
    /// How long the first record of a bulk waits for more under load.
    pub linger: Duration,
    /// Maximum number of bulks in flight.
    pub bulks_in_flight: usize,
    /// Interval between commits of offsets.
    pub commit_interval: Duration,
}

/// Moves records from a subscription into the store; see [`run`](Self::run).
pub struct Persist {
    settler: Arc<Settler>,
    options: PersistOptions,
    runtime: tokio::runtime::Handle,
    stop: Arc<Stop>,
}

impl std::fmt::Debug for Persist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Persist").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Stops the worker from another thread.
#[derive(Debug, Default)]
pub struct Stop {
    requested: AtomicBool,
    deadline: std::sync::OnceLock<Instant>,
}

impl Stop {
    /// Asks the worker to settle its bulks in flight, commit, and stop before
    /// `deadline`. If it is called more than once, the first deadline applies.
    pub fn request(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
        self.requested.store(true, Ordering::Release);
    }

    fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    fn deadline(&self) -> Instant {
        self.deadline.get().copied().unwrap_or_else(Instant::now)
    }
}

impl Persist {
    /// Creates a worker that stores into `store` and `dead_letters`. Its
    /// bulks run on `runtime`.
    #[must_use]
    pub fn new(
        store: GuardedStore,
        dead_letters: Arc<dyn DeadLetters>,
        status: Arc<WorkerStatus>,
        options: PersistOptions,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let topic = options.topic.clone();
        let settler = Arc::new(Settler { store, dead_letters, status, topic });
        Self { settler, options, runtime, stop: Arc::default() }
    }

    /// Returns the handle that stops the worker.
    #[must_use]
    pub fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// Returns `true` once the worker has been asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    /// Reports in readiness why the worker does not run, until it has run for ten
    /// seconds.
    pub fn report(&self, failure: &str) {
        self.settler.status.set_failure(Some(failure.to_owned()));
    }

    /// Runs the worker until it is asked to stop. Blocks the thread.
    pub fn run(&self, subscription: Box<dyn Subscription>) {
        self.settler.status.release_gathered();
        let mut work = WorkerLoop::new(self, subscription);
        let mut is_proven = false;
        let start = Instant::now();
        while !self.stop.is_requested() {
            work.step();
            if !is_proven && start.elapsed() >= PROOF {
                self.settler.status.set_failure(None);
                is_proven = true;
            }
        }
        work.finish(self.stop.deadline());
    }
}
