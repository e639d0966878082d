//! Callers, ack log and oracle without the fault plan, for a test that starts and disturbs the
//! servers itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::ack_log::AckLog;
use super::callers::{Traffic, poison_for};
use super::oracle::Oracle;
use super::poison::Poisoner;
use super::store::Reader;
use super::violations::Violations;
use super::{CALLERS, event, recovery};
use crate::eventually;

/// Where the events go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The base URLs of the APIs. The first one also reads.
    pub apis: Vec<String>,
    /// The queue behind the APIs. `None`: the embedded one.
    pub kafka: Option<KafkaTarget>,
}

/// A topic of Kafka and the group that stores it.
#[derive(Debug, Clone)]
pub struct KafkaTarget {
    /// The value of `bootstrap.servers`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The consumer group of the workers.
    pub group: String,
}

/// A number of events that callers send with retries, and the check that each acknowledged one is
/// stored exactly once. On Kafka, one poison message per hundred events is sent as well.
#[derive(Debug)]
pub struct Scenario {
    target: Target,
    ack_log: Arc<AckLog>,
    rate: Option<u64>,
}

impl Scenario {
    /// Creates a scenario whose events follow from the random seed.
    #[must_use]
    pub fn new(target: Target, seed: u64, events: u64) -> Self {
        let poison = if target.kafka.is_some() { poison_for(events) } else { 0 };
        let ack_log = Arc::new(AckLog::new(seed, events, poison));
        Self { target, ack_log, rate: None }
    }

    /// Limits the events per second.
    #[must_use]
    pub fn rate(mut self, rate: u64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Starts to send. The task ends when every event is acknowledged or its caller has given up.
    ///
    /// # Errors
    /// Returns an error if the producer of the poison messages cannot be created.
    pub fn send(&self) -> Result<JoinHandle<Result<()>>> {
        let kafka = self.target.kafka.as_ref();
        let traffic = Traffic {
            apis: self.target.apis.clone(),
            token: None,
            callers: CALLERS,
            rate: self.rate,
            poisoner: kafka.map(|kafka| Poisoner::new(&kafka.brokers, &kafka.topic)).transpose()?,
            gate: Arc::default(),
            ack_log: Arc::clone(&self.ack_log),
        };
        Ok(tokio::spawn(traffic.run()))
    }

    /// Returns event `n` and its id, for a test that sends the events itself.
    #[must_use]
    pub fn event(&self, n: u64) -> (String, Value) {
        (event::own_id(self.ack_log.seed, n).to_string(), event::event(n))
    }

    /// Notes that event `n` was acknowledged under this id, for a test that sends the events
    /// itself.
    pub fn acknowledge(&self, n: u64, id: &str) {
        self.ack_log.acknowledge(n, id);
    }

    /// Returns the number of acknowledged events.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.ack_log.counts.acknowledged.load(Relaxed)
    }

    /// Waits until this many events are acknowledged.
    ///
    /// # Errors
    /// Returns an error if `timeout` passes first.
    pub async fn wait_for_acknowledged(&self, count: u64, timeout: Duration) -> Result<()> {
        eventually(&format!("{count} acknowledged events"), timeout, async || {
            let acknowledged = self.acknowledged();
            ensure!(acknowledged >= count, "{acknowledged} are acknowledged");
            Ok(())
        })
        .await
    }

    /// Waits until the spools are empty, everything in the topic is committed and each acknowledged
    /// event can be read, and returns the violations. `others` are the ids of logs that the test
    /// sent by other means; each must be stored once as well.
    ///
    /// # Errors
    /// Returns an error if records are still not committed when `timeout` passes, or the store
    /// cannot be read.
    pub async fn check(&self, others: &[String], timeout: Duration) -> Result<Violations> {
        if let Some(KafkaTarget { brokers, topic, group }) = &self.target.kafka {
            eventually(
                "the spools to be empty and the topic to be committed",
                timeout,
                async || {
                    // In this order, because records move from a spool into the topic.
                    let mut spooled = 0;
                    for api in &self.target.apis {
                        spooled += recovery::spooled_records(api, None).await?;
                    }
                    let lag =
                        recovery::lag_of(brokers.clone(), topic.clone(), group.clone()).await?;
                    ensure!(
                        spooled + lag == 0,
                        "{spooled} records in a spool, {lag} not committed"
                    );
                    Ok(())
                },
            )
            .await?;
            return self.compare(others).await;
        }
        // The embedded queue does not export when it is drained, so the store is read repeatedly.
        let outcome =
            eventually("each acknowledged event to be stored once", timeout, async || {
                let violations = self.compare(others).await?;
                if violations.is_empty() { Ok(violations) } else { Err(violations.into()) }
            })
            .await;
        outcome.or_else(|error| match error.downcast::<Violations>() {
            Ok(violations) => Ok(violations),
            Err(error) => Err(error),
        })
    }

    /// Reads the store once and compares it with the ack log.
    async fn compare(&self, others: &[String]) -> Result<Violations> {
        let mut oracle = Oracle::new(&self.ack_log, others.iter().cloned());
        let api = self.target.apis.first().context("a target has an API")?;
        Reader::new(api.clone(), None)?.show(&mut oracle).await?;
        let (_, mut violations) = oracle.finish();
        violations.extend(self.ack_log.violations());
        Ok(violations)
    }
}
