//! Storing gives way to requests that need the machine: how long, and for whom
//! not.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eyego_log_core::LogId;
use eyego_log_server::application::persist::{Persist, PersistOptions, Requests, WorkerStatus};
use eyego_log_server::domain::queue::{LogQueue, RecordBatch};
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::infrastructure::embedded::DataDir;
use eyego_log_server::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use eyego_log_server::infrastructure::repository::sqlite::{
    SqliteDeadLetters, SqliteRepository, SqliteStore,
};
use eyego_log_server::interface::worker::Worker;
use tempfile::TempDir;

use crate::conformance::{PATIENCE, entry, id};

const FOR_EVER: Duration = Duration::from_secs(3600);

/// Requests that take the machine when they are told to.
struct Load {
    takes_all: AtomicBool,
    is_awaited: AtomicBool,
    /// When it was asked last, and for how long they had been at work.
    busy: Mutex<(Instant, Duration)>,
}

impl Requests for Load {
    fn busy(&self) -> Duration {
        let mut state = self.busy.lock().unwrap();
        let (then, mut busy) = *state;
        let now = Instant::now();
        if self.takes_all.load(Ordering::Relaxed) {
            busy += now - then;
        }
        *state = (now, busy);
        busy
    }

    fn await_storing(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }
}

/// An embedded queue, a worker that gives way, and a store.
struct Pipeline {
    load: Arc<Load>,
    status: Arc<WorkerStatus>,
    queue: Arc<SqliteQueue>,
    repository: Arc<SqliteRepository>,
    logs: AtomicU32,
    _worker: Worker,
    _dir: TempDir,
}

impl Pipeline {
    /// Requests take all of the machine.
    async fn under_load(max_delay: Duration, max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let options = SqliteQueueOptions { max_bytes, ..SqliteQueueOptions::default() };
        let queue = SqliteQueue::open(&data_dir, options).unwrap();
        let store = SqliteStore::open(&data_dir).unwrap();
        let repository = Arc::new(SqliteRepository::new(Arc::clone(&store)));
        let dead_letters = Arc::new(SqliteDeadLetters::new(store));
        let status = Arc::new(WorkerStatus::default());
        let load = Arc::new(Load {
            takes_all: AtomicBool::new(true),
            is_awaited: AtomicBool::new(false),
            busy: Mutex::new((Instant::now(), Duration::ZERO)),
        });
        let options = PersistOptions {
            topic: "embedded".to_owned(),
            max_bytes: 1 << 20,
            bulk_records: 100,
            linger: Duration::from_millis(10),
            bulks_in_flight: 2,
            commit_interval: Duration::from_millis(100),
            max_delay,
        };
        let runtime = tokio::runtime::Handle::current();
        let persist =
            Persist::new(repository.clone(), dead_letters, Arc::clone(&status), options, runtime)
                .giving_way_to(load.clone());
        let worker = Worker::start(persist, queue.clone()).unwrap();
        let logs = AtomicU32::new(0);
        let pipeline = Self { load, status, queue, repository, logs, _worker: worker, _dir: dir };
        pipeline.wait_for_pressure().await;
        pipeline
    }

    /// Until what is queued waits.
    async fn wait_for_pressure(&self) {
        let started = Instant::now();
        while !self.status.counts().gives_way {
            assert!(started.elapsed() < PATIENCE, "never gives way");
            self.append(1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The id of the last of so many new logs.
    async fn append(&self, logs: u32) -> LogId {
        let mut batch = RecordBatch::default();
        let first = self.logs.fetch_add(logs, Ordering::Relaxed);
        for n in first..first + logs {
            batch.push(&entry(n, "ada", "A", 0, "{}"));
        }
        assert!(self.queue.append(batch).await.iter().all(Result::is_ok));
        id(first + logs - 1)
    }

    async fn is_stored(&self, id: LogId) -> bool {
        self.repository.get(id).await.unwrap().is_some()
    }

    /// How long it takes until it is stored.
    async fn stored_after(&self, id: LogId) -> Duration {
        let started = Instant::now();
        while !self.is_stored(id).await {
            assert!(started.elapsed() < PATIENCE, "never stored");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        started.elapsed()
    }

    async fn stays_queued(&self, id: LogId) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!self.is_stored(id).await && self.status.counts().gives_way);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storing_waits_until_requests_leave_the_machine() {
    let pipeline = Pipeline::under_load(FOR_EVER, 4 << 30).await;
    // More than the worker gathers.
    let last = pipeline.append(1000).await;
    pipeline.stays_queued(last).await;
    pipeline.load.takes_all.store(false, Ordering::Relaxed);
    pipeline.stored_after(last).await;
    assert!(!pipeline.status.counts().gives_way);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_old_enough_is_stored_whatever_the_load() {
    let max_delay = Duration::from_secs(3);
    let pipeline = Pipeline::under_load(max_delay, 4 << 30).await;
    let log = pipeline.append(1).await;
    let took = pipeline.stored_after(log).await;
    assert!(took > max_delay / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_for_its_log_is_not_kept_waiting() {
    let pipeline = Pipeline::under_load(FOR_EVER, 4 << 30).await;
    let log = pipeline.append(1).await;
    pipeline.stays_queued(log).await;
    pipeline.load.is_awaited.store(true, Ordering::Relaxed);
    pipeline.stored_after(log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_fills_up_is_emptied_whatever_the_load() {
    let pipeline = Pipeline::under_load(FOR_EVER, 1 << 20).await;
    let log = pipeline.append(1).await;
    pipeline.stays_queued(log).await;
    for _ in 0..20 {
        pipeline.append(100).await;
    }
    pipeline.stored_after(log).await;
}
