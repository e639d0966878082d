//! The callers: they take unit after unit and send each of its events until it is acknowledged, by
//! turns to each api, as the README tells plain HTTP callers to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::event::{Insistence, Manner, UNIT, event, manner, own_id};
use super::ledger::{Ledger, index};
use super::poison::Poisoner;
use super::random::mix;

/// Longer than the server takes for its answer at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);
/// A caller that gets no acknowledgement for so long has reason to complain: no planned outage is
/// nearly as long.
const STUCK: Duration = Duration::from_secs(120);
/// Single events of a unit under way at once.
const SINGLES_AT_ONCE: usize = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// One record of poison for so many units: one for a hundred events.
const UNITS_PER_POISON: u64 = 100 / UNIT;

/// Poison that belongs to so many events.
pub(super) fn poison_of(events: u64) -> u64 {
    events.div_ceil(UNIT).div_ceil(UNITS_PER_POISON)
}

/// What the callers do.
pub(super) struct Traffic {
    /// The bases of the URLs of the apis.
    pub(super) apis: Vec<String>,
    pub(super) callers: u64,
    /// Events in a second at most.
    pub(super) rate: Option<u64>,
    pub(super) poisoner: Poisoner,
    pub(super) ledger: Arc<Ledger>,
}

struct Caller {
    client: reqwest::Client,
    traffic: Arc<Traffic>,
}

/// A request's answer: for each of its events, in order, the id if it was acknowledged.
type Answer = Vec<Option<String>>;

impl Traffic {
    /// Sends everything; returns when all callers are done.
    pub(super) async fn run(self) -> Result<()> {
        let traffic = Arc::new(self);
        let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let callers: Vec<_> = (0..traffic.callers)
            .map(|_| {
                let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
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
        let ledger = Arc::clone(&self.traffic.ledger);
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            let first = unit * UNIT;
            if first >= ledger.events() {
                return;
            }
            if let Some(rate) = self.traffic.rate {
                let due = Duration::from_micros(first * 1_000_000 / rate.max(1));
                tokio::time::sleep_until(began + due).await;
            }
            let numbers: Vec<u64> = (first..(first + UNIT).min(ledger.events())).collect();
            let poison = unit / UNITS_PER_POISON;
            let is_poisonous = unit.is_multiple_of(UNITS_PER_POISON);
            let poisoning = async {
                if is_poisonous && self.traffic.poisoner.put(poison).await {
                    ledger.poisoned(poison);
                }
            };
            tokio::join!(self.send_unit(unit, &numbers), poisoning);
        }
    }

    async fn send_unit(&self, unit: u64, numbers: &[u64]) {
        let manner = manner(self.traffic.ledger.seed, unit);
        if manner.is_batch {
            self.insist(unit, numbers, manner).await;
        } else {
            stream::iter(numbers)
                .for_each_concurrent(SINGLES_AT_ONCE, |n| async move {
                    self.insist(unit, &[*n], manner).await;
                })
                .await;
        }
    }

    /// Sends these events in one request as often as the manner says.
    async fn insist(&self, unit: u64, numbers: &[u64], manner: Manner) {
        let ledger = &self.traffic.ledger;
        let began = Instant::now();
        let mut open = numbers.to_vec();
        for attempt in 0_u32.. {
            match self.request(unit, &open, manner, attempt).await {
                Ok(answer) => self.note(&mut open, &answer),
                Err(complaint) => {
                    ledger.complain(format!("unit {unit}: {complaint}"));
                    return;
                }
            }
            if open.is_empty() {
                break;
            }
            if manner.insistence == Insistence::Once {
                ledger.counts.given_up.fetch_add(open.len() as u64, Ordering::Relaxed);
                return;
            }
            if began.elapsed() > STUCK {
                ledger.complain(format!("unit {unit} is not acknowledged after {STUCK:?}"));
                return;
            }
            let longest =
                (Duration::from_millis(50) * 2_u32.pow(attempt.min(5))).min(LONGEST_PAUSE);
            let jitter = mix(unit, u64::from(attempt)) % 1_000;
            tokio::time::sleep(longest.mul_f64(jitter as f64 / 1_000.0)).await;
        }
        if manner.insistence == Insistence::OnceMore {
            // The answer is the same, or is none: the ledger complains if the ids differ.
            let repeated = self.request(unit, numbers, manner, 1).await;
            match repeated {
                Ok(answer) => self.note(&mut numbers.to_vec(), &answer),
                Err(complaint) => ledger.complain(format!("unit {unit} repeated: {complaint}")),
            }
        }
    }

    /// Strikes off what was acknowledged.
    fn note(&self, open: &mut Vec<u64>, answer: &Answer) {
        let mut ids = answer.iter();
        open.retain(|n| match ids.next() {
            Some(Some(id)) => {
                self.traffic.ledger.acknowledge(*n, id);
                false
            }
            _ => true,
        });
    }

    /// One request. An error is a complaint: an answer that valid events must not get.
    async fn request(
        &self,
        unit: u64,
        numbers: &[u64],
        manner: Manner,
        attempt: u32,
    ) -> Result<Answer, String> {
        let Traffic { apis, ledger, .. } = &*self.traffic;
        let counts = &ledger.counts;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let api = &apis[index(unit + u64::from(attempt)) % apis.len()];
        let nothing = vec![None; numbers.len()];
        let own = |n: u64| own_id(ledger.seed, n).to_string();
        let items: Vec<Value> = numbers
            .iter()
            .map(|n| {
                let mut event = event(*n);
                if !manner.is_keyed {
                    event["id"] = json!(own(*n));
                }
                event
            })
            .collect();
        let mut request = if manner.is_batch {
            let lines: Vec<_> = items.iter().map(ToString::to_string).collect();
            self.client
                .post(format!("{api}/api/v1/logs/batch"))
                .header("content-type", "application/x-ndjson")
                .body(lines.join("\n"))
        } else {
            self.client.post(format!("{api}/api/v1/logs")).json(&items[0])
        };
        if manner.is_keyed {
            let of = if manner.is_batch { unit } else { numbers[0] };
            request = request.header("idempotency-key", format!("{}-{of}", ledger.seed));
        }
        let Ok(answer) = request.send().await else {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(nothing);
        };
        let status = answer.status().as_u16();
        let Ok(body) = answer.json::<Value>().await else {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            return Ok(nothing);
        };
        match status {
            202 => {}
            207 if manner.is_batch => {
                counts.partly.fetch_add(1, Ordering::Relaxed);
            }
            503 => {
                counts.unavailable.fetch_add(1, Ordering::Relaxed);
                return Ok(nothing);
            }
            _ => return Err(format!("answered {status}: {body}")),
        }
        read(manner, numbers, &body, own).ok_or_else(|| format!("{status} without ids: {body}"))
    }
}

/// The ids of an answer that acknowledges all or some. None when it does not say what it must.
fn read(
    manner: Manner,
    numbers: &[u64],
    body: &Value,
    own: impl Fn(u64) -> String,
) -> Option<Answer> {
    if !manner.is_batch {
        return Some(vec![Some(body["id"].as_str()?.to_owned())]);
    }
    let rejected: HashMap<u64, bool> = match body["rejected"].as_array() {
        Some(list) => list
            .iter()
            .map(|item| Some((item["index"].as_u64()?, item["retryable"].as_bool()?)))
            .collect::<Option<_>>()?,
        None => HashMap::new(),
    };
    // All that we send is valid.
    if rejected.values().any(|is_retryable| !is_retryable) {
        return None;
    }
    if body["accepted"].as_u64()? != (numbers.len() - rejected.len()) as u64 {
        return None;
    }
    let id = |(at, n): (u64, &u64)| {
        if rejected.contains_key(&at) {
            Some(None)
        } else if manner.is_keyed {
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

    const KEYED: Manner =
        Manner { is_batch: true, is_keyed: true, insistence: Insistence::UntilAcknowledged };

    fn answer(manner: Manner, body: &Value) -> Option<Answer> {
        read(manner, &[10, 11], body, |n| format!("own-{n}"))
    }

    #[test]
    fn an_answer_says_what_was_acknowledged() {
        let all = json!({"accepted": 2, "ids": ["a", "b"], "rejected": []});
        let ids = |a: &str, b: &str| Some(vec![Some(a.to_owned()), Some(b.to_owned())]);
        assert_eq!(answer(KEYED, &all), ids("a", "b"));
        let own = Manner { is_keyed: false, ..KEYED };
        assert_eq!(answer(own, &json!({"accepted": 2})), ids("own-10", "own-11"));
        let rejected = json!([{"index": 0, "retryable": true}]);
        let some = json!({"accepted": 1, "ids": ["a", "b"], "rejected": rejected});
        assert_eq!(answer(KEYED, &some), Some(vec![None, Some("b".to_owned())]));
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_none() {
        let rejected = json!([{"index": 0, "retryable": true}]);
        for body in [
            json!({}),
            json!({"accepted": 2}),
            json!({"accepted": 1, "ids": ["a", "b"]}),
            json!({"accepted": 2, "ids": ["a", "b"], "rejected": rejected}),
            json!({"accepted": 2, "ids": ["a", null]}),
            json!({"accepted": 1, "ids": ["a", "b"], "rejected": [{"index": 0, "retryable": false}]}),
        ] {
            assert_eq!(answer(KEYED, &body), None, "{body}");
        }
    }
}
