//! From the queue into the store: every record, exactly once.
//!
//! One thread polls the subscription and gathers records into bulks; each bulk
//! is settled by a task of its own, several at once; what is settled without a
//! gap is committed. "Exactly once" is: delivered at least once, and stored
//! under a unique id. No offset overtakes a record, so a crash only repeats
//! what the ids then recognise.
//!
//! | file | what |
//! |---|---|
//! | `batcher` | records into bulks (pure) |
//! | `watermark` | how far a partition is done (pure) |
//! | `retry` | when to try again (pure) |
//! | `work` | the loop |
//! | `bulk` | settles one bulk: stores, retries, finds culprits, writes dead letters |
//! | `assignment` | the partitions held, and what of them is under way |

mod assignment;
mod batcher;
mod bulk;
mod retry;
mod status;
mod watermark;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::bulk::Settler;
pub use self::status::{WorkerCounts, WorkerStatus};
use self::work::Work;
use crate::domain::dead_letter::DeadLetters;
use crate::domain::repository::LogRepository;
use crate::domain::subscription::Subscription;

/// How the worker works.
#[derive(Debug, Clone)]
pub struct PersistOptions {
    /// The name of the queue: part of the ids that are derived.
    pub topic: String,
    /// Bytes of records that are gathered or under way, counted as they are in
    /// memory while they are decoded and encoded.
    pub max_bytes: usize,
    /// Records in a bulk.
    pub bulk_records: usize,
    /// How long the first record of a bulk waits for others while others come.
    pub linger: Duration,
    /// Bulks that are under way at once.
    pub bulks_in_flight: usize,
    /// How often offsets are committed.
    pub commit_interval: Duration,
}

/// The use case; [`run`](Self::run) is its whole life.
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

/// Tells the worker to end.
#[derive(Debug, Default)]
pub struct Stop {
    requested: AtomicBool,
    deadline: std::sync::OnceLock<Instant>,
}

impl Stop {
    /// Asks the worker to settle what is under way, commit, and end by then.
    pub fn request(&self, deadline: Instant) {
        // The first deadline holds.
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
    /// A worker that stores into these; its bulks run on `runtime`.
    #[must_use]
    pub fn new(
        repository: Arc<dyn LogRepository>,
        dead_letters: Arc<dyn DeadLetters>,
        status: Arc<WorkerStatus>,
        options: PersistOptions,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let topic = options.topic.clone();
        let settler = Arc::new(Settler { repository, dead_letters, status, topic });
        Self { settler, options, runtime, stop: Arc::default() }
    }

    /// What tells it to stop.
    #[must_use]
    pub fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    /// Shows a problem of the worker as a whole in readiness and in the log,
    /// until something is stored.
    pub fn report(&self, problem: &str) {
        tracing::error!("{problem}");
        self.settler.status.set_problem(Some(problem.to_owned()));
    }

    /// Works until it is told to stop. Blocks the thread.
    pub fn run(&self, subscription: Box<dyn Subscription>) {
        self.settler.status.release_gathered();
        let mut work = Work::begin(self, subscription);
        while !self.stop.is_requested() {
            work.turn();
        }
        work.finish(self.stop.deadline());
    }
}
