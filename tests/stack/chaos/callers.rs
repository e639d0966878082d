//! The callers. Each takes one unit of events after another and sends it until it is acknowledged,
//! alternating between the APIs, as the documentation tells HTTP callers to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::time::Instant;

use super::ack_log::{AckLog, index};
use super::event::{Retries, SendMode, UNIT, event, own_id, send_mode};
use super::poison::Poisoner;
use super::random::mix;
use crate::keys::client_with;

/// Longer than the server takes for any response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);
/// The time after which a missing acknowledgement is a violation. No planned outage is nearly as
/// long; callers wait for up to three minutes while the topic is replaced.
const STUCK: Duration = Duration::from_secs(300);
/// The number of single events of a unit that are in flight at once.
const SINGLES_AT_ONCE: usize = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The number of units per poison message: one message per hundred events.
const UNITS_PER_POISON: u64 = 100 / UNIT;

/// Returns the number of poison messages that belong to this many events.
pub(super) fn poison_for(events: u64) -> u64 {
    events.div_ceil(UNIT).div_ceil(UNITS_PER_POISON)
}

/// What the callers send, and where to.
pub(super) struct Traffic {
    /// The base URLs of the APIs.
    pub(super) apis: Vec<String>,
    /// The token to send, if the APIs have keys.
    pub(super) token: Option<String>,
    pub(super) callers: u64,
    /// The most events per second.
    pub(super) rate: Option<u64>,
    pub(super) poisoner: Option<Poisoner>,
    /// Held for reading by each request.
    pub(super) gate: Arc<RwLock<()>>,
    pub(super) ack_log: Arc<AckLog>,
}

struct Caller {
    client: reqwest::Client,
    traffic: Arc<Traffic>,
}

/// For each event of a request, in order: its id if it was acknowledged.
type Acknowledged = Vec<Option<String>>;

impl Traffic {
    /// Sends everything and returns when all callers have finished.
    pub(super) async fn run(self) -> Result<()> {
        let traffic = Arc::new(self);
        let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let callers: Vec<_> = (0..traffic.callers)
            .map(|_| {
                let client = client_with(traffic.token.as_deref(), REQUEST_TIMEOUT)?;
                let caller = Caller { client, traffic: Arc::clone(&traffic) };
                Ok(tokio::spawn(caller.work(Arc::clone(&next), began)))
            })
            .collect::<Result<_>>()?;
        for caller in callers {
            caller.await.context("a caller panicked")?;
        }
        Ok(())
    }
}

impl Caller {
    async fn work(self, next: Arc<AtomicU64>, began: Instant) {
        let ack_log = Arc::clone(&self.traffic.ack_log);
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            let first = unit * UNIT;
            if first >= ack_log.events() {
                return;
            }
            if let Some(rate) = self.traffic.rate {
                let due = Duration::from_micros(first * 1_000_000 / rate.max(1));
                tokio::time::sleep_until(began + due).await;
            }
            let numbers: Vec<u64> = (first..(first + UNIT).min(ack_log.events())).collect();
            let poison = unit / UNITS_PER_POISON;
            let is_poisonous = unit.is_multiple_of(UNITS_PER_POISON);
            let poisoning = async {
                if let Some(poisoner) = self.traffic.poisoner.as_ref().filter(|_| is_poisonous) {
                    let _open = self.traffic.gate.read().await;
                    if poisoner.send(poison).await {
                        ack_log.poison_sent(poison);
                    }
                }
            };
            tokio::join!(self.send_unit(unit, &numbers), poisoning);
        }
    }

    async fn send_unit(&self, unit: u64, numbers: &[u64]) {
        let mode = send_mode(self.traffic.ack_log.seed, unit);
        if mode.is_batch {
            self.send(unit, numbers, mode).await;
        } else {
            stream::iter(numbers)
                .for_each_concurrent(SINGLES_AT_ONCE, |n| async move {
                    self.send(unit, &[*n], mode).await;
                })
                .await;
        }
    }

    /// Sends these events in one request, and again as the mode requires.
    async fn send(&self, unit: u64, numbers: &[u64], mode: SendMode) {
        let ack_log = &self.traffic.ack_log;
        let began = Instant::now();
        let mut open = numbers.to_vec();
        for attempt in 0_u32.. {
            match self.request(unit, &open, mode, attempt).await {
                Ok(acknowledged) => self.note(&mut open, &acknowledged),
                Err(violation) => {
                    ack_log.report(format!("unit {unit}: {violation}"));
                    return;
                }
            }
            if open.is_empty() {
                break;
            }
            if mode.retries == Retries::Never {
                ack_log.counts.given_up.fetch_add(open.len() as u64, Ordering::Relaxed);
                return;
            }
            if began.elapsed() > STUCK {
                ack_log.report(format!("unit {unit} is not acknowledged after {STUCK:?}"));
                return;
            }
            let longest =
                (Duration::from_millis(50) * 2_u32.pow(attempt.min(5))).min(LONGEST_PAUSE);
            let jitter = mix(unit, u64::from(attempt)) % 1_000;
            tokio::time::sleep(longest.mul_f64(jitter as f64 / 1_000.0)).await;
        }
        if mode.retries == Retries::OnceAgain {
            // The ack log reports a violation if the ids differ.
            let repeated = self.request(unit, numbers, mode, 1).await;
            match repeated {
                Ok(acknowledged) => self.note(&mut numbers.to_vec(), &acknowledged),
                Err(violation) => ack_log.report(format!("unit {unit} repeated: {violation}")),
            }
        }
    }

    /// Notes the acknowledged events and removes them from `open`.
    fn note(&self, open: &mut Vec<u64>, acknowledged: &Acknowledged) {
        let mut ids = acknowledged.iter();
        open.retain(|n| match ids.next() {
            Some(Some(id)) => {
                self.traffic.ack_log.acknowledge(*n, id);
                false
            }
            _ => true,
        });
    }

    /// Sends one request. The error is a violation: a response that valid events must not get.
    async fn request(
        &self,
        unit: u64,
        numbers: &[u64],
        mode: SendMode,
        attempt: u32,
    ) -> Result<Acknowledged, String> {
        let Traffic { apis, ack_log, .. } = &*self.traffic;
        let counts = &ack_log.counts;
        let _open = self.traffic.gate.read().await;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let api = &apis[index(unit + u64::from(attempt)) % apis.len()];
        let nothing = vec![None; numbers.len()];
        let own = |n: u64| own_id(ack_log.seed, n).to_string();
        let items: Vec<Value> = numbers
            .iter()
            .map(|n| {
                let mut event = event(*n);
                if !mode.is_keyed {
                    event["id"] = json!(own(*n));
                }
                event
            })
            .collect();
        let mut request = if mode.is_batch {
            let lines: Vec<_> = items.iter().map(ToString::to_string).collect();
            self.client
                .post(format!("{api}/api/v1/logs/batch"))
                .header("content-type", "application/x-ndjson")
                .body(lines.join("\n"))
        } else {
            self.client.post(format!("{api}/api/v1/logs")).json(&items[0])
        };
        if mode.is_keyed {
            let of = if mode.is_batch { unit } else { numbers[0] };
            request = request.header("idempotency-key", format!("{}-{of}", ack_log.seed));
        }
        let Ok(response) = request.send().await else {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(nothing);
        };
        let status = response.status().as_u16();
        let Ok(body) = response.json::<Value>().await else {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(nothing);
        };
        match status {
            202 => {}
            207 if mode.is_batch => {
                counts.partial.fetch_add(1, Ordering::Relaxed);
            }
            503 => {
                counts.unavailable.fetch_add(1, Ordering::Relaxed);
                return Ok(nothing);
            }
            _ => return Err(format!("status {status}: {body}")),
        }
        read_ids(mode, numbers, &body, own)
            .ok_or_else(|| format!("status {status} without valid ids: {body}"))
    }
}

/// Returns the ids of a response that acknowledges all or some events, or `None` if the response is
/// incomplete or contradicts itself.
fn read_ids(
    mode: SendMode,
    numbers: &[u64],
    body: &Value,
    own: impl Fn(u64) -> String,
) -> Option<Acknowledged> {
    if !mode.is_batch {
        return Some(vec![Some(body["id"].as_str()?.to_owned())]);
    }
    let rejected: HashMap<u64, bool> = match body["rejected"].as_array() {
        Some(list) => list
            .iter()
            .map(|item| Some((item["index"].as_u64()?, item["retryable"].as_bool()?)))
            .collect::<Option<_>>()?,
        None => HashMap::new(),
    };
    // All events that the callers send are valid.
    if rejected.values().any(|is_retryable| !is_retryable) {
        return None;
    }
    if body["accepted"].as_u64()? != (numbers.len() - rejected.len()) as u64 {
        return None;
    }
    let id = |(at, n): (u64, &u64)| {
        if rejected.contains_key(&at) {
            Some(None)
        } else if mode.is_keyed {
            Some(Some(body["ids"][index(at)].as_str()?.to_owned()))
        } else {
            Some(Some(own(*n)))
        }
    };
    (0..).zip(numbers).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: SendMode =
        SendMode { is_batch: true, is_keyed: true, retries: Retries::UntilAcknowledged };

    fn parsed(mode: SendMode, body: &Value) -> Option<Acknowledged> {
        read_ids(mode, &[10, 11], body, |n| format!("own-{n}"))
    }

    #[test]
    fn response_lists_the_acknowledged_events() {
        let all = json!({"accepted": 2, "ids": ["a", "b"], "rejected": []});
        let ids = |a: &str, b: &str| Some(vec![Some(a.to_owned()), Some(b.to_owned())]);
        assert_eq!(parsed(KEYED, &all), ids("a", "b"));
        let own = SendMode { is_keyed: false, ..KEYED };
        assert_eq!(parsed(own, &json!({"accepted": 2})), ids("own-10", "own-11"));
        let rejected = json!([{"index": 0, "retryable": true}]);
        let some = json!({"accepted": 1, "ids": ["a", "b"], "rejected": rejected});
        assert_eq!(parsed(KEYED, &some), Some(vec![None, Some("b".to_owned())]));
    }

    #[test]
    fn contradictory_response_is_not_used() {
        let rejected = json!([{"index": 0, "retryable": true}]);
        for body in [
            json!({}),
            json!({"accepted": 2}),
            json!({"accepted": 1, "ids": ["a", "b"]}),
            json!({"accepted": 2, "ids": ["a", "b"], "rejected": rejected}),
            json!({"accepted": 2, "ids": ["a", null]}),
            json!({"accepted": 1, "ids": ["a", "b"], "rejected": [{"index": 0, "retryable": false}]}),
        ] {
            assert_eq!(parsed(KEYED, &body), None, "{body}");
        }
    }
}
