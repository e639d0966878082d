//! The embedded adapters put to their ports' tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_core::LogEntry;
use eyego_log_server::domain::dead_letter::DeadLetters;
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::infrastructure::embedded::DataDir;
use eyego_log_server::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use eyego_log_server::infrastructure::repository::sqlite::{
    SqliteDeadLetters, SqliteRepository, SqliteStore,
};
use tempfile::TempDir;

use crate::conformance::dead_letters::DeadLettersFixture;
use crate::conformance::queue::QueueFixture;
use crate::conformance::repository::RepositoryFixture;
use crate::conformance::{self, PATIENCE, entry};

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_keeps_its_promises() {
    conformance::queue::run(4, || async {
        Box::new(EmbeddedQueue::new()) as Box<dyn QueueFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repository_keeps_its_promises() {
    conformance::repository::run(4, || async {
        Box::new(EmbeddedStore::new()) as Box<dyn RepositoryFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_keep_their_promises() {
    conformance::dead_letters::run(4, || async {
        Box::new(EmbeddedStore::new()) as Box<dyn DeadLettersFixture>
    })
    .await;
}

fn deadline() -> std::time::Instant {
    std::time::Instant::now() + PATIENCE
}

struct EmbeddedQueue {
    dir: TempDir,
    queue: Option<Arc<SqliteQueue>>,
}

impl EmbeddedQueue {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = Some(open_queue(dir.path()));
        Self { dir, queue }
    }
}

fn open_queue(path: &Path) -> Arc<SqliteQueue> {
    let data_dir = DataDir::open(path).unwrap();
    // Machines that run tests have slow disks.
    let append_timeout = Duration::from_secs(15);
    let options = SqliteQueueOptions { append_timeout, ..SqliteQueueOptions::default() };
    SqliteQueue::open(&data_dir, options).unwrap()
}

#[async_trait]
impl QueueFixture for EmbeddedQueue {
    fn queue(&self) -> Arc<dyn LogQueue> {
        Arc::clone(self.queue.as_ref().unwrap()) as Arc<dyn LogQueue>
    }

    async fn restart(&mut self) {
        self.queue.take().unwrap().close(deadline()).await;
        self.queue = Some(open_queue(self.dir.path()));
    }
}

struct EmbeddedStore {
    dir: TempDir,
    store: Arc<SqliteStore>,
}

impl EmbeddedStore {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        Self { dir, store }
    }

    async fn reopen(&mut self) {
        self.store.close(deadline()).await;
        self.store = open_store(self.dir.path());
    }
}

fn open_store(path: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&DataDir::open(path).unwrap()).unwrap()
}

#[async_trait]
impl RepositoryFixture for EmbeddedStore {
    fn repository(&self) -> Arc<dyn LogRepository> {
        Arc::new(SqliteRepository::new(Arc::clone(&self.store)))
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }

    fn unstorable(&self, n: u32) -> Option<LogEntry> {
        let file = rusqlite::Connection::open(self.dir.path().join("store.db")).unwrap();
        file.execute_batch(
            "CREATE TRIGGER rule BEFORE INSERT ON logs WHEN NEW.action = 'REFUSED' \
             BEGIN SELECT RAISE(ABORT, 'refused by a rule'); END",
        )
        .unwrap();
        Some(entry(n, "ada", "REFUSED", 0, "{}"))
    }
}

#[async_trait]
impl DeadLettersFixture for EmbeddedStore {
    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(SqliteDeadLetters::new(Arc::clone(&self.store)))
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }
}
