//! Erasures of a server that is killed at each step: after the request, while events and dead letters are
//! deleted, in the second pass, and before the erasures are done.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use bson::{DateTime, doc, oid::ObjectId};
use eyego_log_core::LogIdGenerator;
use serde_json::{Value, json};
use stack::eventually;
use stack::kafka::{Kafka, KafkaOptions};
use stack::server::Server;

use super::erase;
use super::erasing::files_with;
use crate::fixture::{Deployment, NDJSON, TIMEOUT, get, post, post_bytes, post_log, ready};
use crate::metrics::{Scrape, scrape_until};

/// Erased users. One more is not erased.
const USERS: usize = 6;
/// Events of a user before its erasure. They are deleted in several steps.
const EARLY: usize = 1_200;
/// Dead letters of a user before its erasure.
const CONFLICTS: usize = 8;
/// Events of a user after its erasure.
const LATER: usize = 10;
/// Longer than the time between the two passes.
const SECOND_PASS: Duration = Duration::from_secs(180);
/// A part of the metadata of all events that must be gone.
const SECRET: &str = "early-secret-of-a-subject";

fn user(n: usize) -> String {
    format!("subject-{n}-of-many")
}

/// The erasures in progress, and what each user must have in the end.
struct Case<'a> {
    server: &'a Server,
    ids: LogIdGenerator,
    erasures: Vec<String>,
    later: BTreeMap<String, Vec<String>>,
}

impl<'a> Case<'a> {
    fn new(server: &'a Server) -> Self {
        Self { server, ids: LogIdGenerator::new(), erasures: Vec::new(), later: BTreeMap::new() }
    }

    fn id(&self) -> String {
        self.ids.generate(SystemTime::now().into()).to_string()
    }

    /// Posts events in one batch, each until it is acknowledged.
    async fn post(&self, events: &[Value]) {
        let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
        let lines = lines.join("\n");
        eventually("events to be accepted", TIMEOUT, async || {
            let headers = [("content-type", NDJSON)];
            let path = "/api/v1/logs/batch";
            let (status, body) = post_bytes(self.server, path, &headers, lines.clone()).await;
            ensure!(status == 202, "{body}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Posts events of each user, some under an id that is taken.
    async fn post_early(&self, count: usize) {
        for n in 0..=USERS {
            let event = |id: String, text: &str| {
                json!({"id": id, "userId": user(n), "action": "EARLY",
                       "metadata": {"secret": format!("{SECRET}-{n}"), "text": text}})
            };
            let text = "x".repeat(300);
            let mut events: Vec<_> = (0..count).map(|_| event(self.id(), &text)).collect();
            for index in 0..CONFLICTS.min(count) {
                let id = events[index]["id"].as_str().unwrap().to_owned();
                events.push(event(id, "another event under this id"));
            }
            self.post(&events).await;
        }
    }

    /// Requests the erasures.
    async fn erase(&mut self) {
        for n in 0..USERS {
            let erasure = erase(self.server, &user(n)).await;
            self.erasures.push(erasure["id"].as_str().unwrap().to_owned());
        }
    }

    /// Posts events of erased users, which must be stored once.
    async fn post_later(&mut self) {
        for n in 0..USERS {
            let mut posted = Vec::new();
            for _ in 0..LATER {
                let id = self.id();
                let event = json!({"id": id, "userId": user(n), "action": "LATER"});
                assert_eq!(post_log(self.server, &event).await.0, 202);
                posted.push(id);
            }
            posted.sort();
            self.later.insert(user(n), posted);
        }
    }

    async fn kill(&self) {
        self.server.restart().await.unwrap();
        self.server.wait_ready(TIMEOUT * 2).await.unwrap();
    }

    async fn states(&self) -> Vec<Value> {
        let mut states = Vec::new();
        for id in &self.erasures {
            let (_, body) = get(self.server, &format!("/api/v1/erasures/{id}")).await;
            states.push(body["data"].clone());
        }
        states
    }

    /// Waits until the erasures are as expected. Checks often, to meet a step while it lasts.
    async fn wait_for(&self, step: &str, timeout: Duration, is_met: impl Fn(&[Value]) -> bool) {
        let began = Instant::now();
        loop {
            let states = self.states().await;
            if is_met(&states) {
                return;
            }
            assert!(began.elapsed() < timeout, "{step}: {states:?}\n{}", self.server.log());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Checks what is stored: all later events once, and nothing that was received before.
    async fn check(&self) {
        for (user, posted) in &self.later {
            let (_, page) =
                get(self.server, &format!("/api/v1/logs?limit=1000&userId={user}")).await;
            let mut stored: Vec<_> = page["data"].as_array().unwrap().iter().collect();
            stored.sort_by_key(|log| log["id"].to_string());
            let ids: Vec<_> = stored.iter().map(|log| log["id"].as_str().unwrap()).collect();
            assert_eq!(&ids, posted, "{user}");
        }
        let (_, page) = get(self.server, "/api/v1/dead-letters?limit=1000").await;
        for dead_letter in page["data"].as_array().unwrap() {
            assert_eq!(dead_letter["userId"], user(USERS), "{dead_letter}");
        }
    }
}

fn removed(states: &[Value], place: &str) -> u64 {
    states.iter().filter_map(|state| state["removed"][place].as_u64()).sum()
}

fn done(states: &[Value]) -> usize {
    states.iter().filter(|state| state["state"] == "done").count()
}

/// The kills before all dead letters are deleted.
const KILLS: u64 = 3;

/// Kills the server at the steps of the first pass.
async fn kill_in_the_first_pass(case: &Case<'_>) {
    case.wait_for("events are deleted", TIMEOUT * 3, |states| removed(states, "store") > 0).await;
    case.kill().await;
    let are_deleted = |states: &[Value]| removed(states, "deadLetters") > 0;
    case.wait_for("dead letters are deleted", TIMEOUT * 3, are_deleted).await;
    case.kill().await;
    // A server that is killed between a deletion and its count does not count it.
    let all = (USERS * CONFLICTS) as u64;
    let are_deleted = |states: &[Value]| removed(states, "deadLetters") + KILLS >= all;
    case.wait_for("all dead letters are deleted", TIMEOUT * 3, are_deleted).await;
}

/// Takes up to four minutes: twice the time between the two passes.
#[tokio::test(flavor = "multi_thread")]
async fn erasure_survives_kills_at_each_step_embedded() {
    let server = ready(Server::builder()).await;
    let mut case = Case::new(&server);
    case.post_early(EARLY).await;
    scrape_until(&server, "dead letters", |scrape| {
        scrape.sum("eyego_worker_dead_letters_total") >= (USERS * CONFLICTS) as f64
    })
    .await;
    // The end of the backlog is not stored when the erasures are requested.
    case.post_early(50).await;
    case.erase().await;
    case.kill().await;
    case.post_later().await;
    kill_in_the_first_pass(&case).await;
    // The file is written anew at the end of the second pass, through the write-ahead log.
    let size = |name: &str| server.data_dir().join(name).metadata().map_or(0, |file| file.len());
    let is_rewritten = || size("store.db-wal") > size("store.db") / 3;
    case.wait_for("the second pass", SECOND_PASS, |states| is_rewritten() || done(states) > 0)
        .await;
    case.kill().await;
    case.wait_for("all are done", SECOND_PASS, |states| done(states) == USERS).await;
    case.kill().await;
    let (status, body) = post(&server, "/api/v1/dead-letters/replay", &json!({"all": true})).await;
    assert_eq!(status, 200, "{body}");
    case.check().await;
    assert_bytes_are_gone(server.data_dir()).await;
}

/// Waits until no file of the directory contains an erased event. Those of the other user are left.
async fn assert_bytes_are_gone(dir: &Path) {
    for n in 0..USERS {
        eventually("the bytes to be gone", SECOND_PASS, async || {
            let files = files_with(dir, &format!("{SECRET}-{n}\""));
            ensure!(files.is_empty(), "{n}: {files:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// Takes up to four minutes, as above. A part of the events is in the spool when they are erased.
#[tokio::test(flavor = "multi_thread")]
async fn erasure_survives_kills_at_each_step_on_kafka_and_mongodb() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let deployment = Deployment::on_shared_mongodb(kafka.bootstrap()).await;
    let spool = tempfile::tempdir().unwrap();
    let server = ready(deployment.server("all").env("EYEGO_SPOOL_DIR", spool.path())).await;
    let mut case = Case::new(&server);
    case.post_early(EARLY).await;
    scrape_until(&server, "dead letters", |scrape| {
        scrape.sum("eyego_worker_dead_letters_total") >= (USERS * CONFLICTS) as f64
    })
    .await;
    kafka.pause(0).unwrap();
    case.post_early(20).await;
    scrape_until(&server, "events in the spool", |scrape| scrape.get("eyego_spool_records") > 0.0)
        .await;
    case.erase().await;
    server.restart().await.unwrap();
    kafka.resume(0).unwrap();
    server.wait_ready(TIMEOUT * 2).await.unwrap();
    case.post_later().await;
    kill_in_the_first_pass(&case).await;
    // Events that a worker with an older list stores after the first pass.
    let logs = deployment.collection("logs").await;
    let received = DateTime::from_millis(DateTime::now().timestamp_millis() - 24 * 60 * 60 * 1000);
    let late = (0..USERS * 20).map(|n| {
        doc! {"_id": ObjectId::new(), "userId": user(n % USERS), "action": "LATE",
        "timestamp": received, "receivedAt": received, "metadata": {"secret": SECRET}}
    });
    logs.insert_many(late).await.unwrap();
    let before = removed(&case.states().await, "store");
    let is_met = |states: &[Value]| removed(states, "store") > before || done(states) > 0;
    case.wait_for("the second pass", SECOND_PASS, is_met).await;
    case.kill().await;
    case.wait_for("all are done", SECOND_PASS, |states| done(states) == USERS).await;
    case.kill().await;

    // Another group starts at offset 0.
    let replay = deployment.server_in_group("worker", "replay").start().await.unwrap();
    let is_replayed = |scrape: &Scrape| {
        scrape.check_worker();
        let consumed = scrape.get("eyego_worker_consumed_total");
        consumed >= (EARLY * USERS) as f64 && scrape.partitions() == 6 && scrape.is_drained()
    };
    let scrape = scrape_until(&replay, "the topic to be replayed", is_replayed).await;
    let erased = scrape.get("eyego_worker_skipped_total{reason=\"erased\"}");
    assert!(erased >= (USERS * EARLY) as f64, "{erased}");
    let (status, body) = post(&server, "/api/v1/dead-letters/replay", &json!({"all": true})).await;
    assert_eq!(status, 200, "{body}");
    case.check().await;
    assert_bytes_are_gone(spool.path()).await;
}
