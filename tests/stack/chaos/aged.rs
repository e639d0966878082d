//! Events with a short retention: sends events of mixed age, and knows that each is refused, skipped or
//! deleted once it is too old, and that none comes back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use eyego_log_core::Timestamp;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tokio::sync::{RwLock, watch};
use tokio::time::sleep;

use super::ack_log::index;
use super::deployment::Deployment;
use super::poison;
use super::random::mix;
use super::violations::Violations;
use crate::eventually;
use crate::keys::client_with;

/// The retention of all other events: longer than the age of each.
pub(super) const LONG_RETENTION: &str = "36500d";
/// The action whose events expire soon.
const ACTION: &str = "AGED";
const RETENTION: Duration = Duration::from_secs(20);
/// Events are sent with ages from 0 to this.
const MAX_AGE: Duration = Duration::from_secs(40);
/// Events of a round.
const EVENTS: u64 = 10;
/// Longer than the server takes for any response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(500);
/// The time after the last event until all are deleted.
const GONE: Duration = Duration::from_secs(120);

/// Returns the value of `EYEGO_RETENTION_BY_ACTION`.
pub(super) fn short_retention() -> String {
    format!("{ACTION}={}s", RETENTION.as_secs())
}

/// What the ager observed.
#[derive(Debug, Default)]
pub(super) struct AgedEvents {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// Events that could be read before they expired.
    stored: AtomicU64,
    violations: Mutex<Violations>,
}

impl AgedEvents {
    fn report(&self, violation: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).add(violation);
    }

    /// Returns the counts as text.
    pub(super) fn counts(&self) -> String {
        format!(
            "{} events with a short retention were acknowledged, {} of them read, {} refused",
            self.acknowledged.load(Relaxed),
            self.stored.load(Relaxed),
            self.refused.load(Relaxed)
        )
    }

    /// Notes the response to an event that was `age` old when it was sent, and younger than `later`
    /// when the response arrived.
    fn note(&self, status: Option<u16>, age: Duration, later: Duration, id: &str) {
        match status {
            Some(200 | 202) if age > RETENTION => {
                self.report(format!("event {id} was accepted {age:?} old"));
            }
            Some(200 | 202) => {
                self.acknowledged.fetch_add(1, Relaxed);
                self.stored.fetch_add(u64::from(status == Some(200)), Relaxed);
            }
            Some(400) if later <= RETENTION => {
                self.report(format!("event {id} was refused at most {later:?} old"));
            }
            Some(400) => {
                self.refused.fetch_add(1, Relaxed);
            }
            // The second event under an id, or an outage.
            None | Some(409 | 503) => {}
            Some(status) => self.report(format!("event {id}: status {status}")),
        }
    }

    /// Checks a stored log. Returns `false` if it is not one of these.
    pub(super) fn log(&self, log: &Value) -> bool {
        let is_aged = log["action"] == ACTION;
        if is_aged {
            self.report(format!("an expired event is stored: {log}"));
        }
        is_aged
    }

    /// Checks a dead letter. Returns `false` if it is not one of these.
    pub(super) fn dead_letter(&self, raw: &[u8]) -> bool {
        let record: Value = serde_json::from_slice(raw).unwrap_or_default();
        let is_aged = record["action"] == ACTION;
        if is_aged {
            self.report(format!("the dead letter of an expired event is left: {record}"));
        }
        is_aged
    }

    /// Returns the violations, once everything has been read.
    pub(super) fn finish(&self) -> Violations {
        if self.stored.load(Relaxed) == 0 {
            self.report("no event with a short retention was ever stored".to_owned());
        }
        std::mem::take(&mut *self.violations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends events of mixed age through the APIs of a deployment.
pub(super) struct Ager<'a> {
    apis: Vec<String>,
    /// The address of an API without its proxy.
    direct: String,
    topic: String,
    producer: FutureProducer,
    client: reqwest::Client,
    gate: Arc<RwLock<()>>,
    seed: u64,
    aged: &'a AgedEvents,
}

impl<'a> Ager<'a> {
    pub(super) fn new(deployment: &Deployment, seed: u64, aged: &'a AgedEvents) -> Result<Self> {
        let bootstrap = deployment.kafka.bootstrap();
        let api = deployment.apis.first().context("a deployment has an API")?;
        Ok(Self {
            apis: deployment.api_urls(),
            direct: api.server.base_url(),
            topic: deployment.names.topic.clone(),
            producer: poison::producer(bootstrap)?,
            client: client_with(Some(&deployment.token), REQUEST_TIMEOUT)?,
            gate: Arc::clone(&deployment.gate),
            seed,
            aged,
        })
    }

    /// Sends until the load is over.
    pub(super) async fn run(&self, is_over: watch::Receiver<bool>) {
        for round in 0_u64.. {
            if *is_over.borrow() {
                return;
            }
            for n in 0..EVENTS {
                let id = format!("a9{:06x}{round:08x}{n:08x}", self.seed & 0xff_ffff);
                let random = mix(self.seed, round * EVENTS + n);
                let age = match n {
                    0 => Duration::ZERO,
                    _ => Duration::from_millis(random % MAX_AGE.as_millis() as u64),
                };
                self.post(&id, age, random, json!({"n": n})).await;
                if n == 0 {
                    // Under the same id: a dead letter that could be replayed once the first event is
                    // deleted.
                    self.post(&id, age, random + 1, json!({"n": "another"})).await;
                }
            }
            self.send_expired(round).await;
            sleep(PAUSE).await;
        }
    }

    async fn post(&self, id: &str, age: Duration, random: u64, metadata: Value) {
        let _open = self.gate.read().await;
        let began = SystemTime::now();
        let timestamp = Timestamp::from(began - age).to_string();
        let event = json!({"id": id, "userId": format!("aged-{}", random % 99), "action": ACTION,
                           "timestamp": timestamp, "metadata": metadata});
        let api = &self.apis[index(random) % self.apis.len()];
        let wait = if age.is_zero() { "?wait=stored&timeout=2s" } else { "" };
        let request = self.client.post(format!("{api}/api/v1/logs{wait}")).json(&event);
        let status = request.send().await.ok().map(|response| response.status().as_u16());
        // One millisecond more, because timestamps are truncated to milliseconds.
        let later = age + began.elapsed().unwrap_or_default() + Duration::from_millis(1);
        self.aged.note(status, age, later, id);
    }

    /// Sends an expired record directly to the topic.
    async fn send_expired(&self, round: u64) {
        let _open = self.gate.read().await;
        let timestamp = Timestamp::from(SystemTime::now() - MAX_AGE).to_string();
        let user = format!("aged-{round}");
        let event = json!({"id": null, "userId": user, "action": ACTION, "timestamp": timestamp});
        let value = event.to_string();
        let record = FutureRecord::to(&self.topic).key(&user).payload(&value);
        // Whether it arrives makes no difference.
        let _ = self.producer.send(record, REQUEST_TIMEOUT).await;
    }

    /// Sends one more event, then waits until no event with a short retention is stored. Under load, the
    /// workers can be so far behind that all others expire before they are stored.
    pub(super) async fn wait_until_gone(&self) -> Result<()> {
        let id = format!("a9{:06x}ffffffff00000000", self.seed & 0xff_ffff);
        self.post(&id, Duration::ZERO, 0, json!({"n": "last"})).await;
        let url = format!("{}/api/v1/logs?action={ACTION}", self.direct);
        eventually("the expired events to be deleted", GONE, async || {
            let page: Value = self.client.get(&url).send().await?.json().await?;
            ensure!(page["results"] == 0, "{page}");
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn wrong_verdicts_about_age_are_violations() {
        let check = |status, age, later| {
            let aged = AgedEvents::default();
            aged.note(Some(200), Duration::ZERO, SECOND, "stored");
            aged.note(status, age, later, "x");
            aged.finish().is_empty()
        };
        let (young, old) = (RETENTION - 2 * SECOND, RETENTION + SECOND);
        assert!(check(Some(202), young, young + SECOND));
        assert!(check(Some(202), young, old), "it became too old on its way");
        assert!(check(Some(400), young, old), "it became too old on its way");
        assert!(check(Some(400), old, old + SECOND));
        assert!(check(Some(503), old, old) && check(None, young, young));
        assert!(!check(Some(202), old, old + SECOND), "accepted too late");
        assert!(!check(Some(400), young, young + SECOND), "refused too early");
        assert!(!check(Some(500), young, young));
    }

    #[test]
    fn expired_events_that_are_left_or_never_were_stored_are_violations() {
        let aged = AgedEvents::default();
        assert!(!aged.finish().is_empty(), "none was stored");
        aged.note(Some(200), Duration::ZERO, SECOND, "x");
        assert!(!aged.log(&json!({"action": "CHAOS"})) && !aged.dead_letter(b"not JSON"));
        assert!(aged.finish().is_empty());
        assert!(aged.log(&json!({"action": ACTION})));
        assert!(!aged.finish().is_empty());
        assert!(aged.dead_letter(format!("{{\"action\":\"{ACTION}\"}}").as_bytes()));
        assert!(!aged.finish().is_empty());
    }
}
