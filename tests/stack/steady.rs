//! A well-behaved caller: sends events at a steady rate, retries what is not acknowledged, and checks
//! at the end that each acknowledged event is stored once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eyego_log_core::LogId;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::eventually;
use crate::keys::client_with;

/// Distinguishes its events.
const ACTION: &str = "STEADY";
/// Requests in flight at most.
const CALLERS: u64 = 64;
const TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// The time until the last event is stored.
const STORED: Duration = Duration::from_secs(120);

/// The caller.
#[derive(Debug)]
pub struct SteadyCaller {
    base_url: String,
    client: reqwest::Client,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    next: AtomicU64,
    acknowledged: AtomicU64,
    retries: AtomicU64,
    given_up: AtomicU64,
    /// From the moment at which the event was due until it was acknowledged, in microseconds.
    latencies: Mutex<Vec<u32>>,
}

/// What the caller observed.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Acknowledged events.
    pub acknowledged: u64,
    /// Events that were not acknowledged in 20 seconds.
    pub given_up: u64,
    /// Requests that were repeated.
    pub retries: u64,
    /// The time from the moment at which an event was due until it was acknowledged, ascending.
    pub latencies: Vec<u32>,
    /// The 99th percentile of each tenth of the acknowledgements, in their order.
    pub p99_by_tenth: Vec<Duration>,
}

impl Observed {
    /// Returns the latency that this many of a thousand events did not exceed.
    #[must_use]
    pub fn per_mille(&self, share: usize) -> Duration {
        per_mille(&self.latencies, share)
    }
}

/// Returns the latency that this many of a thousand did not exceed. Expects ascending latencies.
fn per_mille(latencies: &[u32], share: usize) -> Duration {
    let index = latencies.len().saturating_sub(1) * share / 1000;
    Duration::from_micros(latencies.get(index).copied().unwrap_or_default().into())
}

/// Returns the id of event `n`.
fn id(n: u64) -> LogId {
    let mut bytes = [0x5e; 12];
    bytes[4..].copy_from_slice(&n.to_be_bytes());
    LogId::from_bytes(bytes)
}

impl SteadyCaller {
    /// Creates a caller of the server at this URL.
    ///
    /// # Errors
    /// Returns an error if the token is not visible ASCII.
    pub fn new(base_url: String, token: &str) -> Result<Self> {
        let client = client_with(Some(token), TIMEOUT)?;
        Ok(Self { base_url, client, seen: Arc::default() })
    }

    /// Sends this many events per second until the deadline.
    ///
    /// # Errors
    /// Returns an error if a response is neither an acknowledgement nor an outage.
    pub async fn send(&self, rate: u64, deadline: Instant) -> Result<Observed> {
        let began = Instant::now();
        let mut callers = JoinSet::<Result<()>>::new();
        for _ in 0..CALLERS {
            let (client, seen) = (self.client.clone(), Arc::clone(&self.seen));
            let url = format!("{}/api/v1/logs", self.base_url);
            callers.spawn(async move {
                loop {
                    let n = seen.next.fetch_add(1, Relaxed);
                    let due = began + Duration::from_micros(n * 1_000_000 / rate);
                    if due >= deadline {
                        return Ok(());
                    }
                    sleep_until(due.into()).await;
                    post(&client, &url, &seen, n, due).await?;
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.context("a caller panicked")??;
        }
        let mut latencies = self.seen.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let tenth = (latencies.len() / 10).max(1);
        let p99_by_tenth = latencies.chunks_exact_mut(tenth).map(|tenth| {
            tenth.sort_unstable();
            per_mille(tenth, 990)
        });
        let p99_by_tenth = p99_by_tenth.collect();
        latencies.sort_unstable();
        Ok(Observed {
            p99_by_tenth,
            acknowledged: self.seen.acknowledged.load(Relaxed),
            given_up: self.seen.given_up.load(Relaxed),
            retries: self.seen.retries.load(Relaxed),
            latencies: latencies.clone(),
        })
    }

    /// Waits until each acknowledged event is stored once.
    ///
    /// # Errors
    /// Returns an error if some are missing or stored twice after two minutes.
    pub async fn check(&self, observed: &Observed) -> Result<()> {
        let expected = observed.acknowledged;
        eventually("each acknowledged event to be stored once", STORED, async || {
            let (stored, twice) = self.stored().await?;
            ensure!(twice == 0, "{twice} events are stored twice");
            // One that was given up may be stored.
            ensure!(stored >= expected, "{stored} of {expected} events are stored");
            Ok(())
        })
        .await
    }

    /// Returns the number of different events that are stored, and of those that are there twice.
    async fn stored(&self) -> Result<(u64, u64)> {
        let url = format!("{}/api/v1/logs/export?action={ACTION}", self.base_url);
        let request = self.client.get(url).timeout(STORED);
        let mut response = request.send().await?.error_for_status()?;
        let (mut ids, mut twice, mut rest) = (HashSet::new(), 0, Vec::new());
        while let Some(chunk) = response.chunk().await? {
            rest.extend_from_slice(&chunk);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            for line in rest[..end].split(|byte| *byte == b'\n') {
                let log: Value = serde_json::from_slice(line)?;
                let n = log["metadata"]["n"].as_u64().context("an event has no number")?;
                ensure!(log["id"] == json!(id(n)), "another event: {log}");
                twice += u64::from(!ids.insert(n));
            }
            rest.drain(..=end);
        }
        Ok((ids.len() as u64, twice))
    }
}

/// Posts event `n` until it is acknowledged.
async fn post(
    client: &reqwest::Client,
    url: &str,
    seen: &Seen,
    n: u64,
    due: Instant,
) -> Result<()> {
    let event = json!({"id": id(n), "userId": format!("steady-{}", n % 997), "action": ACTION,
                       "metadata": {"n": n}});
    loop {
        if let Ok(response) = client.post(url).json(&event).send().await {
            let status = response.status().as_u16();
            if status == 202 {
                let latency = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
                seen.acknowledged.fetch_add(1, Relaxed);
                seen.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
                return Ok(());
            }
            ensure!(status == 503, "event {n}: status {status}");
        }
        if due.elapsed() > TIMEOUT {
            seen.given_up.fetch_add(1, Relaxed);
            return Ok(());
        }
        seen.retries.fetch_add(1, Relaxed);
        sleep(PAUSE).await;
    }
}
