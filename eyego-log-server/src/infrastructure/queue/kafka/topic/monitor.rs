//! The background task that observes the topic, and creates it if it does not
//! exist.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::{Found, Positions, TopicClient};
use super::create::Admin;
use super::identity::{self, Seen};
use super::observed::{Observed, Obstacles};
use super::settings::describe;
use super::{MAX_GROUP_BYTES, Topic};
use crate::domain::subscription::QueueError;

/// Interval at which a reachable topic is checked.
const READY_INTERVAL: Duration = Duration::from_secs(2);

/// Interval at which an absent or unreachable topic is checked.
const ABSENT_INTERVAL: Duration = Duration::from_millis(500);

/// Interval at which the topic's settings are read.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Monitor {
    topic: Arc<Topic>,
    client: Arc<TopicClient>,
    admin: Admin,
    /// When the topic's settings were last read.
    settings_at: Option<Instant>,
}

impl Monitor {
    pub(super) fn new(topic: Arc<Topic>) -> Result<Self, QueueError> {
        let client = Arc::new(TopicClient::new(&topic.options, false)?);
        let admin = Admin::new(Arc::clone(&topic.options))?;
        Ok(Self { topic, client, admin, settings_at: None })
    }

    /// Monitors the topic until it is stopped.
    pub(super) async fn run(mut self) {
        let mut stopped = self.topic.is_stopped.subscribe();
        loop {
            self.observe_group();
            let began = Instant::now();
            let pause = match self.find_or_create().await {
                // A broker described a topic that was deleted.
                Ok(found) if self.compare(&found) == Seen::Deleted => ABSENT_INTERVAL,
                Ok(found) => {
                    if self.settings_at.is_none_or(|at| at.elapsed() >= SETTINGS_INTERVAL) {
                        let replicas = found.partitions.iter().map(|info| info.replicas).min();
                        self.read_settings(replicas.unwrap_or(0)).await;
                        self.settings_at = Some(Instant::now());
                    }
                    self.confirm(&found, began);
                    let (asked, of) = (Arc::clone(&self.client), found.clone());
                    let positions = blocking(move || asked.positions(&of)).await;
                    let pause = if positions.is_ok() { READY_INTERVAL } else { ABSENT_INTERVAL };
                    self.publish(&found, positions, began);
                    pause
                }
                Err(reason) => {
                    self.settings_at = None;
                    // Its callbacks would pile up in memory.
                    self.admin.disconnect();
                    self.fail(&reason);
                    ABSENT_INTERVAL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.topic.read_settings.notified() => self.settings_at = None,
                () = self.topic.check_now.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        tokio::task::spawn_blocking(move || drop(self));
    }

    /// Replaces the client by one that also observes the consumer group, if there is a
    /// consumer.
    fn observe_group(&mut self) {
        let has_consumer = self.topic.has_consumer.load(Ordering::Acquire);
        if !has_consumer || self.client.has_group {
            return;
        }
        match TopicClient::new(&self.topic.options, true) {
            Ok(with_group) => {
                let previous = std::mem::replace(&mut self.client, Arc::new(with_group));
                // Dropping it waits for its threads.
                tokio::task::spawn_blocking(move || drop(previous));
            }
            Err(error) => tracing::warn!(%error, "cannot observe the consumer group"),
        }
    }

    /// Finds the topic, or creates it if it does not exist.
    async fn find_or_create(&mut self) -> Result<Found, String> {
        let find = || {
            let client = Arc::clone(&self.client);
            blocking(move || client.find())
        };
        if let Some(found) = find().await? {
            return Ok(found);
        }
        if self.topic.is_confirmed.swap(false, Ordering::AcqRel) {
            let topic = self.topic.options.topic.as_str();
            tracing::error!(topic, "the topic was deleted under the running server; creating it");
        }
        if let Err(reason) = self.admin.create_topic().await {
            let client = Arc::clone(&self.client);
            return blocking(move || Err(client.explain(&reason))).await;
        }
        find().await?.ok_or_else(|| "the topic was created but is not visible yet".to_owned())
    }

    async fn read_settings(&mut self, replicas: usize) {
        let Some(settings) = self.admin.read_settings(replicas).await else { return };
        if let Some(max) = settings.max_message_bytes {
            self.topic.group_bytes.store(max.min(MAX_GROUP_BYTES), Ordering::Release);
            // The limit applies to compressed records.
            let known = if self.topic.options.compresses() { usize::MAX } else { max };
            self.topic.record_bytes.store(known, Ordering::Relaxed);
        }
        let previous =
            std::mem::replace(&mut self.topic.observed.lock().settings, settings.clone());
        if previous.problems != settings.problems {
            match describe(&settings.problems) {
                Some(problems) => tracing::warn!("{problems}"),
                None => tracing::info!(
                    topic = self.topic.options.topic,
                    "the topic's settings are fine"
                ),
            }
        }
    }

    fn compare(&self, found: &Found) -> Seen {
        self.topic.observed.lock().identity.compare(found.topic_id.as_deref())
    }

    /// Allows to produce and consume, and notices whether it is another topic of
    /// the same name.
    fn confirm(&self, found: &Found, began: Instant) {
        let mut observed = self.topic.observed.lock();
        let Observed { identity, offsets, found_at, .. } = &mut *observed;
        let is_other = identity.compare(found.topic_id.as_deref()) == Seen::Replaced;
        identity.note(found.topic_id.as_deref(), offsets);
        *found_at = Some(began);
        if is_other {
            *offsets = Arc::default();
            self.topic.incarnation.fetch_add(1, Ordering::AcqRel);
        }
        drop(observed);
        if is_other {
            let topic = self.topic.options.topic.as_str();
            tracing::error!(
                topic,
                "the topic was deleted and created again: events that were not stored are lost"
            );
        }
        self.topic.requests_in_flight.store(found.requests_in_flight(), Ordering::Relaxed);
        self.topic.is_confirmed.store(true, Ordering::Release);
    }

    fn publish(&self, found: &Found, positions: Result<Positions, String>, began: Instant) {
        let topic = self.topic.options.topic.as_str();
        let min_in_sync = self.topic.observed.lock().settings.min_in_sync;
        let (positions, unreachable) = match positions {
            Ok(positions) => (Some(positions), None),
            Err(reason) => (None, Some(reason)),
        };
        let now = Obstacles {
            absent: None,
            unreachable: found.leaderless(topic).or(unreachable),
            under_replicated: found.under_replicated(topic, min_in_sync),
        };
        let reason = now.first().cloned();
        self.topic.deliveries.set_cause(reason.clone());
        let mut observed = self.topic.observed.lock();
        let before = std::mem::replace(&mut observed.obstacles, now);
        if reason.is_none() {
            observed.checked_at = Some(began);
        }
        if let Some(offsets) = positions.as_ref().and_then(|positions| positions.offsets.as_ref()) {
            // The topic may have been replaced after it was found. The next check tells.
            observed.is_doubtful =
                !observed.is_doubtful && identity::moved_back(&observed.offsets, offsets);
            if observed.is_doubtful {
                self.topic.check_now();
            } else {
                observed.offsets = Arc::new(offsets.clone());
            }
        }
        drop(observed);
        if let Some(error) = positions.and_then(|positions| positions.group_error) {
            tracing::debug!(error, "the consumer group's offsets are unknown");
        }
        match reason {
            Some(reason) if before.first() != Some(&reason) => {
                tracing::warn!(topic, reason, "Kafka is not ready");
            }
            None if before.first().is_some() => tracing::info!(topic, "Kafka is ready"),
            _ => {}
        }
    }

    fn fail(&self, reason: &str) {
        let topic = self.topic.options.topic.as_str();
        self.topic.deliveries.set_cause(Some(reason.to_owned()));
        let previous = self.topic.observed.lock().obstacles.absent.replace(reason.to_owned());
        if previous.as_deref() != Some(reason) {
            tracing::warn!(topic, reason, "Kafka is not ready");
        }
    }
}

/// Runs a blocking request.
async fn blocking<T: Send + 'static>(
    request: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(request).await {
        Ok(result) => result,
        Err(error) => Err(format!("a request to Kafka panicked: {error}")),
    }
}
