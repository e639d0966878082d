//! The embedded queue and store: the conformance suites of their ports, and the time until an event
//! can be read.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_trait::async_trait;
use eyego_log_core::LogEntry;
use eyego_log_server::domain::dead_letter::DeadLetters;
use eyego_log_server::domain::erasure::Erasures;
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::domain::removal::LogRemoval;
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::domain::tail::LogTail;
use eyego_log_server::infrastructure::queue::sqlite::{SqliteQueue, SqliteQueueOptions};
use eyego_log_server::infrastructure::repository::sqlite::{
    SqliteDeadLetters, SqliteErasures, SqliteRepository, SqliteStore,
};
use serde_json::json;
use stack::eventually;
use stack::load::{Load, single_requests};
use stack::server::Server;
use tempfile::TempDir;

use crate::conformance::dead_letters::DeadLettersFixture;
use crate::conformance::queue::QueueFixture;
use crate::conformance::removal::RemovalFixture;
use crate::conformance::repository::RepositoryFixture;
use crate::conformance::tail::TailFixture;
use crate::conformance::{self, entry};
use crate::fixture::{
    TIMEOUT, embedded_server, get, logged, open_data_dir, post_log, ready, stored,
};

#[tokio::test(flavor = "multi_thread")]
async fn queue_conforms_to_its_port() {
    conformance::queue::run(4, || async {
        Box::new(EmbeddedQueue::new()) as Box<dyn QueueFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repository_conforms_to_its_port() {
    conformance::repository::run(4, || async {
        Box::new(EmbeddedStore::new()) as Box<dyn RepositoryFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_conform_to_their_port() {
    conformance::dead_letters::run(4, || async {
        Box::new(EmbeddedStore::new()) as Box<dyn DeadLettersFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_conforms_to_its_port() {
    conformance::removal::run(4, || async {
        Box::new(EmbeddedStore::new()) as Box<dyn RemovalFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasures_conform_to_their_port() {
    conformance::erasures::run(4, || async {
        Box::new(EmbeddedStore::new()) as Box<dyn RemovalFixture>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_conforms_to_its_port() {
    conformance::tail::run(4, || async { Box::new(EmbeddedStore::new()) as Box<dyn TailFixture> })
        .await;
}

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
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
    let data_dir = open_data_dir(path);
    // Disks of test machines are slow.
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
    SqliteStore::open(&open_data_dir(path)).unwrap()
}

#[async_trait]
impl RepositoryFixture for EmbeddedStore {
    fn repository(&self) -> Arc<dyn LogRepository> {
        Arc::new(SqliteRepository::new(Arc::clone(&self.store)))
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }

    fn unstorable(&self, n: u32) -> LogEntry {
        let file = rusqlite::Connection::open(self.dir.path().join("store.db")).unwrap();
        file.execute_batch(
            "CREATE TRIGGER rule BEFORE INSERT ON logs WHEN NEW.action = 'REFUSED' \
             BEGIN SELECT RAISE(ABORT, 'refused by a rule'); END",
        )
        .unwrap();
        entry(n, "ada", "REFUSED", 0, "{}")
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

#[async_trait]
impl RemovalFixture for EmbeddedStore {
    fn repository(&self) -> Arc<dyn LogRepository> {
        RepositoryFixture::repository(self)
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        DeadLettersFixture::dead_letters(self)
    }

    fn removal(&self) -> Arc<dyn LogRemoval> {
        Arc::new(SqliteRepository::new(Arc::clone(&self.store)))
    }

    fn erasures(&self) -> Arc<dyn Erasures> {
        Arc::new(SqliteErasures::new(Arc::clone(&self.store)))
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }
}

#[async_trait]
impl TailFixture for EmbeddedStore {
    fn repository(&self) -> Arc<dyn LogRepository> {
        RepositoryFixture::repository(self)
    }

    fn removal(&self) -> Arc<dyn LogRemoval> {
        RemovalFixture::removal(self)
    }

    async fn tail(&self) -> Arc<dyn LogTail> {
        Arc::new(SqliteRepository::new(Arc::clone(&self.store)))
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }
}

/// Posts events one after another and looks each up until it can be read. Returns the times from the
/// 202 to the successful read.
async fn times_until_readable(server: &Server, caller: u32, events: u32) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..events {
        let event =
            json!({"userId": format!("reader-{caller}"), "action": "A", "metadata": {"n": n}});
        let (status, body) = post_log(server, &event).await;
        assert_eq!(status, 202, "{body}");
        let acknowledged = Instant::now();
        let log = stored(server, body["id"].as_str().unwrap()).await;
        times.push(acknowledged.elapsed());
        assert_eq!(log["metadata"]["n"], n);
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_events_are_readable_within_two_seconds() {
    const CALLERS: u32 = 16;
    const EVENTS: u32 = 5_000;

    let server = Arc::new(embedded_server().await);
    let background = Load {
        address: server.address(),
        connections: 16,
        duration: Duration::from_secs(600),
        request: single_requests(),
        rate: Some(1_000),
    };
    let background = tokio::spawn(background.run());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let server = Arc::clone(&server);
            let events = EVENTS.div_ceil(CALLERS);
            tokio::spawn(async move { times_until_readable(&server, caller, events).await })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    assert!(!background.is_finished(), "the background load ended early");
    background.abort();
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("readable after p50 {p50:?}, p99 {p99:?}, at most {:?}", times[times.len() - 1]);
    assert!(p99 < Duration::from_secs(2), "p99 {p99:?}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_accessible_to_their_owner_only() {
    let scratch = TempDir::new().unwrap();
    let server = Server::builder().data_dir(scratch.path().join("parent/data"));
    let server = ready(server).await;
    let event = json!({"userId": "u", "action": "A"});
    let (_, response) = post_log(&server, &event).await;
    stored(&server, response["id"].as_str().unwrap()).await;
    assert_eq!(mode(server.data_dir()), 0o700);
    assert_eq!(mode(server.data_dir().parent().unwrap()), 0o700);
    let files: Vec<_> =
        std::fs::read_dir(server.data_dir()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let warning = "EYEGO_DATA_DIR is accessible to other users";
    assert!(!server.log().contains(warning), "{}", server.log());

    std::fs::set_permissions(server.data_dir(), Permissions::from_mode(0o755)).unwrap();
    server.restart().await.unwrap();
    assert_eq!(mode(server.data_dir()), 0o755);
    logged(&server, warning).await;
}

/// Posts an event until it is refused, for up to 10 s, and returns the reason in readiness.
async fn refused_soon(server: &Server, part: &str) -> String {
    let event = json!({"userId": "u", "action": "A"});
    eventually("events to be refused", Duration::from_secs(10), async || {
        let (status, body) = post_log(server, &event).await;
        let (ready, health) = get(server, "/health/ready").await;
        ensure!(status == 503 && ready == 503, "{status} {body}, {ready} {health}");
        let part = &health["parts"][part];
        ensure!(part["state"] == "down", "{health}");
        Ok(part["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_refuses_events_soon_after_its_files_are_gone() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 4] = [
        (|dir| std::fs::remove_dir_all(dir).unwrap(), "queue.db was deleted"),
        (
            |dir| {
                std::fs::copy(dir.join("queue.db"), dir.join("copy")).unwrap();
                std::fs::rename(dir.join("copy"), dir.join("queue.db")).unwrap();
            },
            "queue.db was replaced",
        ),
        (
            |dir| std::fs::write(dir.join("queue.db"), "garbage").unwrap(),
            "queue.db was overwritten",
        ),
        (|dir| std::fs::remove_file(dir.join("lock")).unwrap(), "lock was deleted"),
    ];
    for (change, reason) in changes {
        let server = embedded_server().await;
        let event = json!({"userId": "u", "action": "A"});
        let (_, response) = post_log(&server, &event).await;
        stored(&server, response["id"].as_str().unwrap()).await;
        change(server.data_dir());
        let refused = refused_soon(&server, "queue").await;
        assert!(refused.contains(reason), "{refused}");
        assert!(refused.contains("while the server was running"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_whose_file_is_deleted_is_down_and_events_stay_queued() {
    let server = embedded_server().await;
    let event = json!({"userId": "u", "action": "A"});
    let (_, response) = post_log(&server, &event).await;
    stored(&server, response["id"].as_str().unwrap()).await;
    std::fs::remove_file(server.data_dir().join("store.db")).unwrap();
    eventually("the store to be down", Duration::from_secs(10), async || {
        let (_, health) = get(&server, "/health/ready").await;
        let reason = health["parts"]["store"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("store.db was deleted"), "{health}");
        Ok(())
    })
    .await
    .unwrap();
    let (status, response) = post_log(&server, &event).await;
    assert_eq!(status, 202, "{response}");
    let id = response["id"].as_str().unwrap();
    assert_eq!(get(&server, &format!("/api/v1/logs/{id}")).await.0, 404);
    // A restart begins with an empty store, and stores what is queued.
    server.restart().await.unwrap();
    stored(&server, id).await;
}

/// The backup of docs/operations.md, and a restore of it. SQLite deletes the write-ahead log when the last connection closes. That of an
/// `sqlite3` shell is not the last one, as long as the server keeps its locks.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_running_server_leaves_its_files_alone() {
    let server = embedded_server().await;
    let began = Instant::now();
    let restored = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    // The server checks its files every 2 s.
    while began.elapsed() < Duration::from_secs(6) {
        let event = json!({"userId": "u", "action": "A"});
        let (status, response) = post_log(&server, &event).await;
        assert_eq!(status, 202, "{response}");
        ids.push(response["id"].as_str().unwrap().to_owned());
        stored(&server, ids.last().unwrap()).await;
        for file in ["queue.db", "store.db"] {
            let copy = restored.path().join(file);
            let _ = std::fs::remove_file(&copy);
            let backup = rusqlite::Connection::open(server.data_dir().join(file)).unwrap();
            backup.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
            backup.close().unwrap();
            let log = server.data_dir().join(format!("{file}-wal"));
            assert!(log.exists(), "{file}-wal was deleted");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let server = ready(Server::builder().data_dir(restored.path())).await;
    for id in ids {
        stored(&server, &id).await;
    }
}
