//! Erasing on the embedded parts: the passes, with a short time between them, and a
//! whole server that is killed meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogId, LogIdGenerator, Timestamp, UserId};
use eyego_log_server::application::removal::{
    ErasureService, RemovalStatus, Remover, RemoverOptions,
};
use eyego_log_server::domain::dead_letter::{DeadLetter, DeadLetterSummary, DeadLetters};
use eyego_log_server::domain::erasure::{Erasure, Erasures, Removed};
use eyego_log_server::domain::removal::{Examined, LogRemoval, Window};
use eyego_log_server::domain::repository::{LogRepository as _, StoreError};
use eyego_log_server::domain::retention::Retention;
use eyego_log_server::infrastructure::repository::sqlite::{
    SqliteDeadLetters, SqliteErasures, SqliteRepository, SqliteStore,
};
use serde_json::json;
use stack::eventually;
use stack::server::Server;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::erase;
use crate::conformance::{entry, id};
use crate::fixture::{TIMEOUT, get, open_data_dir, post_log, ready};

/// The ports of an embedded store.
struct Store {
    store: Arc<SqliteStore>,
    repository: SqliteRepository,
    dead_letters: Arc<SqliteDeadLetters>,
    erasures: Arc<SqliteErasures>,
    _dir: TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&open_data_dir(dir.path())).unwrap();
        Self {
            repository: SqliteRepository::new(Arc::clone(&store)),
            dead_letters: Arc::new(SqliteDeadLetters::new(Arc::clone(&store))),
            erasures: Arc::new(SqliteErasures::new(Arc::clone(&store))),
            store,
            _dir: dir,
        }
    }

    /// Starts a remover with this time between the two passes.
    fn remove(&self, settled_after: Duration) -> JoinHandle<()> {
        let options = RemoverOptions { retention: Arc::default(), settled_after };
        self.remove_with(Arc::new(self.repository.clone()), options)
    }

    fn remove_with(&self, removal: Arc<dyn LogRemoval>, options: RemoverOptions) -> JoinHandle<()> {
        let remover = Remover::new(
            removal,
            Arc::clone(&self.dead_letters) as Arc<dyn DeadLetters>,
            Arc::clone(&self.erasures) as Arc<dyn Erasures>,
            Arc::<RemovalStatus>::default(),
            options,
        );
        tokio::spawn(async move { remover.run().await })
    }

    async fn request(&self, user: &str) -> Erasure {
        let erasures = Arc::clone(&self.erasures) as Arc<dyn Erasures>;
        let user = UserId::from_stored(user).unwrap();
        ErasureService::new(erasures).request(user).await.unwrap()
    }

    async fn wait_for(
        &self,
        erasure: &Erasure,
        what: &str,
        is_expected: impl Fn(&Erasure) -> bool,
    ) {
        eventually(what, TIMEOUT, async || {
            let now = self.erasures.get(erasure.id).await?.unwrap();
            ensure!(is_expected(&now), "{now:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// Returns an event of a user, received now.
fn event(n: u32, user: &str) -> LogEntry {
    let mut entry = entry(n, user, "A", i64::from(n), "{}");
    entry.received_at = Some(SystemTime::now().into());
    entry
}

fn dead_letter(n: u32, user: Option<&str>, raw: &str) -> DeadLetter {
    let now = Timestamp::from(SystemTime::now());
    let summary = DeadLetterSummary {
        id: id(n),
        truncated_from: None,
        user_id: user.map(str::to_owned),
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        queued_at: now,
        code: "c".to_owned(),
        message: "m".to_owned(),
        attempts: 1,
        failed_at: now,
    };
    DeadLetter { summary, raw: raw.as_bytes().to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_pass_removes_what_was_stored_with_an_older_list() {
    let store = Store::new();
    let before: Vec<_> = (0..2_500).map(|n| event(n, "ada")).collect();
    store.repository.store(&before).await.unwrap();
    let late = event(3_000, "ada");
    for each in [
        dead_letter(1, Some("ada"), "not JSON"),
        dead_letter(2, Some("ada"), r#"{"userId":"ada","metadata":"cut"#),
        dead_letter(3, None, "not JSON"),
        dead_letter(4, Some("bob"), r#"{"userId":"bob"}"#),
    ] {
        store.dead_letters.put(&each).await.unwrap();
    }
    let erasure = store.request("ada").await;
    let kept = event(4_000, "ada");
    store.repository.store(std::slice::from_ref(&kept)).await.unwrap();
    let received_later =
        format!(r#"{{"userId":"ada","receivedAt":"{}"}}"#, kept.received_at.unwrap());
    store.dead_letters.put(&dead_letter(5, Some("ada"), &received_later)).await.unwrap();
    let task = store.remove(Duration::from_secs(3));
    let first = Removed { store: 2_500, dead_letters: 2 };
    store.wait_for(&erasure, "the first pass", |now| now.removed == first).await;

    // A worker that has not read the list yet.
    store.repository.store(std::slice::from_ref(&late)).await.unwrap();
    let running = store.erasures.get(erasure.id).await.unwrap().unwrap();
    assert_eq!(running.completed_at, None, "a second pass is to come");
    store.wait_for(&erasure, "completion", |now| now.completed_at.is_some()).await;
    let done = store.erasures.get(erasure.id).await.unwrap().unwrap();
    assert_eq!(done.removed, Removed { store: 2_501, dead_letters: 2 });
    assert_eq!(store.repository.get(late.id).await.unwrap(), None);
    assert_eq!(store.repository.get(kept.id).await.unwrap(), Some(kept));
    let mut left = Vec::new();
    for n in 1..=5 {
        left.extend(store.dead_letters.get(id(n)).await.unwrap().map(|_| n));
    }
    assert_eq!(left, [3, 4, 5]);
    task.abort();
    store.store.close(Instant::now() + TIMEOUT).await;
}

/// A store in which deleting the events of a user never ends.
struct EndlessErasing(SqliteRepository);

#[async_trait]
impl LogRemoval for EndlessErasing {
    async fn delete_expired(
        &self,
        retention: &Retention,
        now: Timestamp,
        window: &Window,
        limit: u32,
    ) -> Result<Examined, StoreError> {
        self.0.delete_expired(retention, now, window, limit).await
    }

    async fn delete_of_user(&self, _: &UserId, _: Timestamp, _: u32) -> Result<u64, StoreError> {
        std::future::pending().await
    }

    async fn dead_letters_of_user(
        &self,
        user_id: &UserId,
        after: Option<LogId>,
        limit: u32,
    ) -> Result<Vec<LogId>, StoreError> {
        self.0.dead_letters_of_user(user_id, after, limit).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        self.0.oldest().await
    }

    async fn purge(&self) -> Result<(), StoreError> {
        self.0.purge().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_expire_while_an_erasure_does_not_end() {
    let store = Store::new();
    let erasure = store.request("ada").await;
    let retention = Retention::new(Some(Duration::from_secs(2)), []);
    let options = RemoverOptions { retention: Arc::new(retention), settled_after: TIMEOUT };
    let task = store.remove_with(Arc::new(EndlessErasing(store.repository.clone())), options);
    for n in 0..3 {
        let mut event = event(n, "bob");
        event.timestamp = SystemTime::now().into();
        store.repository.store(std::slice::from_ref(&event)).await.unwrap();
        eventually("an expired event to be deleted", TIMEOUT, async || {
            ensure!(store.repository.get(event.id).await?.is_none());
            Ok(())
        })
        .await
        .unwrap();
    }
    let erasure = store.erasures.get(erasure.id).await.unwrap().unwrap();
    assert_eq!(erasure.completed_at, None);
    task.abort();
    store.store.close(Instant::now() + TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasure_continues_wherever_the_process_ended() {
    let store = Store::new();
    let entries: Vec<_> = (0..20_000).map(|n| event(n, ["ada", "bob"][n as usize % 2])).collect();
    store.repository.store(&entries).await.unwrap();
    let erasure = store.request("ada").await;
    let began = Instant::now();
    for run in 1_u64.. {
        let task = store.remove(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(run * 37 % 400 + run * 10)).await;
        task.abort();
        let _ = task.await;
        let now = store.erasures.get(erasure.id).await.unwrap().unwrap();
        if now.completed_at.is_some() {
            break;
        }
        assert!(began.elapsed() < 3 * TIMEOUT, "{now:?} after {run} runs");
    }
    for entry in entries.iter().step_by(97) {
        let is_left = store.repository.get(entry.id).await.unwrap().is_some();
        assert_eq!(is_left, entry.user_id.as_str() == "bob");
    }
    store.store.close(Instant::now() + TIMEOUT).await;
}

/// Returns the files of the directory that contain the text.
pub(super) fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        // A file can disappear meanwhile.
        let bytes = std::fs::read(&path).unwrap_or_default();
        if memchr::memmem::find(&bytes, text.as_bytes()).is_some() {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

/// Takes two minutes: the time between the two passes.
#[tokio::test(flavor = "multi_thread")]
async fn erased_bytes_leave_the_files_of_a_server_that_is_killed_meanwhile() {
    const USERS: u64 = 40;
    const ERASED: u64 = 4;

    let server = ready(Server::builder()).await;
    let ids = LogIdGenerator::new();
    let user = |n: u64| format!("subject-{n:04}-of-many");
    let post = async |n: u64, phase: &str| {
        let id = ids.generate(SystemTime::now().into());
        let secret = format!("{phase}-secret-{}", n % USERS);
        let event = json!({"id": id, "userId": user(n % USERS), "action": "A",
                           "metadata": {"secret": secret, "text": "x".repeat(300)}});
        assert_eq!(post_log(&server, &event).await.0, 202);
    };
    for n in 0..4_000 {
        post(n, "early").await;
    }
    let mut erasures = Vec::new();
    for n in 0..ERASED {
        erasures.push(erase(&server, &user(n)).await);
        // The rest of the backlog is not stored yet.
        server.restart().await.unwrap();
        server.wait_ready(TIMEOUT).await.unwrap();
    }
    for n in 0..ERASED {
        post(n, "later").await;
    }
    for (n, erasure) in (0..).zip(&erasures) {
        let path = format!("/api/v1/erasures/{}", erasure["id"].as_str().unwrap());
        let done = eventually("an erasure to be done", Duration::from_secs(200), async || {
            let (_, body) = get(&server, &path).await;
            ensure!(body["data"]["state"] == "done", "{body}\n{}", server.log());
            Ok(body["data"].clone())
        });
        let done = done.await.unwrap();
        assert_eq!(done["userId"], user(n));
        let (_, page) = get(&server, &format!("/api/v1/logs?userId={}", user(n))).await;
        assert_eq!(page["results"], 1, "{page}");
        assert_eq!(page["data"][0]["metadata"]["secret"], format!("later-secret-{n}"));
    }
    for n in 0..ERASED {
        let secret = format!("early-secret-{n}\"");
        eventually("the bytes to be gone", Duration::from_secs(150), async || {
            let files = files_with(server.data_dir(), &secret);
            ensure!(files.is_empty(), "{files:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    let kept = files_with(server.data_dir(), &format!("early-secret-{ERASED}\""));
    assert_eq!(kept, ["store.db"]);
}
