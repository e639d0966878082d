//! The eraser: erases one user after another while the user's events are posted, queued, spooled and
//! dead-lettered, and knows which of them must be gone and which must be stored.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, sleep};

use super::deployment::Deployment;
use super::poison;
use super::random::mix;
use super::violations::Violations;
use crate::eventually;
use crate::keys::client_with;

/// The events of a user that are sent before the erasure, and after it.
const BEFORE: u64 = 40;
const AFTER: u64 = 10;
/// Longer than the server takes for any response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);
/// The time after which a missing acknowledgement is a violation.
const STUCK: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(500);
/// The time from the request of an erasure until it is done, on a busy machine.
const DONE: Duration = Duration::from_secs(240);
/// The start of the ids of all erased users.
const USER: &str = "erased-user-";

/// What the eraser sent, by event id.
#[derive(Debug, Default)]
pub(super) struct ErasedUsers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Events that a server received before the erasure: none may be left.
    gone: HashSet<String>,
    /// Events that were sent before the erasure and got no response: a server may have received
    /// them after it.
    open: HashSet<String>,
    /// Users that were not erased.
    unjudged: HashSet<String>,
    /// Events that were acknowledged after the erasure, and not found yet.
    kept: HashSet<String>,
    erasures: Vec<String>,
    violations: Violations,
}

impl ErasedUsers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of erasures and of the events that must be gone.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.erasures.len(), state.gone.len())
    }

    /// Checks a stored log. Returns `false` if it is not one of an erased user.
    pub(super) fn log(&self, log: &Value) -> bool {
        if !log["userId"].as_str().is_some_and(|user| user.starts_with(USER)) {
            return false;
        }
        let id = log["id"].as_str().unwrap_or_default();
        let mut state = self.state();
        if state.unjudged.contains(log["userId"].as_str().unwrap_or_default()) {
            return true;
        }
        if state.gone.contains(id) {
            state.violations.add(format!("an erased event is stored: {log}"));
        } else if !state.kept.remove(id) && !state.open.remove(id) {
            state.violations.add(format!("an event was not sent, or is stored twice: {log}"));
        }
        true
    }

    /// Checks a dead letter. Returns `false` if it does not belong to an erased user.
    pub(super) fn dead_letter(&self, raw: &[u8]) -> bool {
        let text = String::from_utf8_lossy(raw);
        let is_of = |user: &String| text.contains(&format!("\"{user}\""));
        let is_erased = text.contains(USER);
        if is_erased && !self.state().unjudged.iter().any(is_of) {
            let text = raw.escape_ascii().to_string();
            self.state().violations.add(format!("a dead letter of an erased user is left: {text}"));
        }
        is_erased
    }

    /// Returns the violations, once everything has been read.
    pub(super) fn finish(&self) -> Violations {
        let mut state = self.state();
        let missing = std::mem::take(&mut state.kept);
        for id in missing {
            state.violations.add(format!("event {id}, sent after an erasure, is not stored"));
        }
        std::mem::take(&mut state.violations)
    }
}

/// Erases users through the APIs of a deployment.
pub(super) struct Eraser<'a> {
    pub(super) apis: Vec<String>,
    pub(super) topic: String,
    pub(super) producer: FutureProducer,
    pub(super) client: reqwest::Client,
    pub(super) gate: Arc<RwLock<()>>,
    pub(super) seed: u64,
    pub(super) erased: &'a ErasedUsers,
}

impl<'a> Eraser<'a> {
    pub(super) fn new(deployment: &Deployment, seed: u64, erased: &'a ErasedUsers) -> Result<Self> {
        let bootstrap = deployment.kafka.bootstrap();
        Ok(Self {
            apis: deployment.api_urls(),
            topic: deployment.names.topic.clone(),
            producer: poison::producer(bootstrap)?,
            client: client_with(Some(&deployment.token), REQUEST_TIMEOUT)?,
            gate: Arc::clone(&deployment.gate),
            seed,
            erased,
        })
    }

    /// Erases one user after another until the load is over.
    pub(super) async fn run(&self, is_over: watch::Receiver<bool>) {
        for round in 0_u64.. {
            if *is_over.borrow() {
                return;
            }
            self.round(round).await;
            sleep(PAUSE).await;
        }
    }

    async fn round(&self, round: u64) {
        let user = format!("{USER}{round}");
        // No store can hold this record, but its user can be read.
        let poison = format!(r#"{{"userId":"{user}","action":"A","metadata":{{"huge":1e999}}}}"#);
        let record = FutureRecord::to(&self.topic).key(&user).payload(poison.as_bytes());
        let poisoned = {
            let _open = self.gate.read().await;
            self.producer.send(record, REQUEST_TIMEOUT).await
        };
        let mut received = Vec::new();
        for n in 0..BEFORE {
            let id = self.id(round, n);
            // Without an acknowledgement, it may still be queued. It was received nevertheless.
            if self.post(&user, &id, n).await.is_some() {
                received.push(id);
            } else {
                self.erased.state().open.insert(id);
            }
        }
        // An unacknowledged poison message can arrive after the erasure.
        if poisoned.is_err() || !self.erase(&user).await {
            self.erased.state().unjudged.insert(user);
            return;
        }
        self.erased.state().gone.extend(received);
        for n in BEFORE..BEFORE + AFTER {
            let id = self.id(round, n);
            let began = Instant::now();
            let mut attempt = n;
            while self.post(&user, &id, attempt).await != Some(202) {
                if began.elapsed() > STUCK {
                    let message = format!("event {id} is not acknowledged after {STUCK:?}");
                    self.erased.state().violations.add(message);
                    return;
                }
                attempt += 1;
                sleep(PAUSE).await;
            }
            self.erased.state().kept.insert(id);
        }
    }

    fn id(&self, round: u64, n: u64) -> String {
        format!("e1{:06x}{round:08x}{n:08x}", self.seed & 0xff_ffff)
    }

    /// Posts an event once. Returns the status, or `None` without a response.
    async fn post(&self, user: &str, id: &str, attempt: u64) -> Option<u16> {
        let _open = self.gate.read().await;
        let api = self.api(attempt);
        let event = json!({"id": id, "userId": user, "action": "ERASED"});
        let response = self.client.post(format!("{api}/api/v1/logs")).json(&event).send().await;
        Some(response.ok()?.status().as_u16())
    }

    /// Requests the erasure until it is acknowledged.
    async fn erase(&self, user: &str) -> bool {
        let began = Instant::now();
        for attempt in 0.. {
            let url = format!("{}/api/v1/users/{user}/logs", self.api(attempt));
            if let Ok(response) = self.client.delete(url).send().await
                && response.status() == 202
                && let Ok(body) = response.json::<Value>().await
                && let Some(id) = body["data"]["id"].as_str()
            {
                self.erased.state().erasures.push(id.to_owned());
                return true;
            }
            if began.elapsed() > STUCK {
                let message = format!("the erasure of {user} is not acknowledged after {STUCK:?}");
                self.erased.state().violations.add(message);
                return false;
            }
            sleep(PAUSE).await;
        }
        false
    }

    fn api(&self, attempt: u64) -> &str {
        let count = self.apis.len() as u64;
        let index = usize::try_from(mix(self.seed, attempt) % count).unwrap_or_default();
        &self.apis[index]
    }

    /// Waits until every erasure is done. Then tries to bring the events back: by a worker that
    /// consumes the whole topic, and by a replay of all dead letters.
    pub(super) async fn bring_back(&self, deployment: &Deployment) -> Result<()> {
        let api = deployment.apis.first().context("a deployment has an API")?.server.base_url();
        let erasures = self.erased.state().erasures.clone();
        for id in erasures {
            let url = format!("{api}/api/v1/erasures/{id}");
            eventually("an erasure to be done", DONE, async || {
                let body: Value = self.client.get(&url).send().await?.json().await?;
                ensure!(body["data"]["state"] == "done", "{body}");
                Ok(())
            })
            .await?;
        }
        let group = format!("{}-replay", deployment.names.group);
        let worker = deployment.worker_of(&group).start().await?;
        eventually("the whole topic to be consumed again", DONE, async || {
            let (bootstrap, topic) = (deployment.kafka.bootstrap(), &deployment.names.topic);
            let lag =
                super::recovery::lag_of(bootstrap.to_owned(), topic.clone(), group.clone()).await?;
            ensure!(lag == 0, "{lag} records are not committed");
            Ok(())
        })
        .await?;
        worker.terminate().await?;
        let replay = self.client.post(format!("{api}/api/v1/dead-letters/replay"));
        let response = replay.timeout(DONE).json(&json!({"all": true})).send().await?;
        ensure!(response.status() == 200, "the replay of dead letters: {}", response.status());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(id: &str) -> Value {
        json!({"id": id, "userId": format!("{USER}1"), "action": "ERASED"})
    }

    #[test]
    fn erased_events_that_are_stored_and_later_ones_that_are_not_are_violations() {
        let erased = ErasedUsers::default();
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let fill = || {
            let mut state = erased.state();
            state.gone = set(&["gone"]);
            state.open = set(&["open"]);
            state.kept = set(&["kept"]);
        };
        fill();
        assert!(!erased.log(&json!({"id": "x", "userId": "other"})));
        assert!(erased.log(&log("kept")) && erased.log(&log("open")));
        assert!(!erased.dead_letter(b"{\"userId\":\"other\"}"));
        assert!(erased.finish().is_empty());
        for found in [&["kept", "gone"][..], &["kept", "kept"], &["kept", "unknown"], &[]] {
            fill();
            found.iter().for_each(|id| assert!(erased.log(&log(id))));
            assert!(!erased.finish().is_empty(), "{found:?}");
        }
        fill();
        erased.log(&log("kept"));
        erased.state().unjudged.insert(format!("{USER}8"));
        assert!(erased.dead_letter(format!("{{\"userId\":\"{USER}8\"}}").as_bytes()));
        assert!(erased.finish().is_empty(), "a user that was not erased");
        fill();
        erased.log(&log("kept"));
        assert!(erased.dead_letter(format!("{{\"userId\":\"{USER}7\"}}").as_bytes()));
        assert!(!erased.finish().is_empty(), "a dead letter");
    }
}
