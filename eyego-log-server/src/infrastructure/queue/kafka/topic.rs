//! Finds or creates the topic, and monitors it: whether records can be produced
//! and consumed, its settings, and its offsets.
//!
//! Nothing is produced or consumed before the topic is confirmed. Otherwise the
//! broker might create it with its default number of partitions, and changing
//! that number later would move keys between partitions.
//!
//! | module | contents |
//! |---|---|
//! | `client` | requests about the topic and the group |
//! | `create` | creates the topic and reads its settings |
//! | `group` | what the group's offsets and assignments say (pure) |
//! | `settings` | which settings endanger events (pure) |

mod client;
mod create;
pub(super) mod group;
mod settings;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub(super) use self::client::PartitionOffsets;
use self::client::{Found, Positions, TopicClient};
use self::create::Admin;
use self::settings::Settings;
use super::KafkaOptions;
use super::deliveries::Deliveries;
use crate::domain::position::{Offset, Partition};
use crate::domain::queue::SettingProblem;
use crate::domain::subscription::QueueError;

/// Interval at which a reachable topic is checked.
const READY_INTERVAL: Duration = Duration::from_secs(2);

/// Interval at which an absent or unreachable topic is checked.
const ABSENT_INTERVAL: Duration = Duration::from_millis(500);

/// Interval at which the topic's settings are read.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum size of a group of records: librdkafka's default.
const MAX_GROUP_BYTES: usize = 1_000_000;

/// A group of records is not made smaller than this, because a request per
/// record costs less than further attempts.
const MIN_GROUP_BYTES: usize = 4_000;

/// The topic, monitored by a background task.
pub(super) struct Topic {
    options: Arc<KafkaOptions>,
    /// Outcomes of deliveries to the topic.
    pub(super) deliveries: Arc<Deliveries>,
    observed: Mutex<Observed>,
    /// Whether the topic exists, so that producing and consuming do not create
    /// it.
    is_confirmed: AtomicBool,
    /// Number of times that the topic was found to be another one of the same
    /// name.
    incarnation: AtomicU64,
    /// Size limit for a group of records.
    group_bytes: AtomicUsize,
    /// Limit for the requests of a producer in flight to each broker.
    requests_in_flight: AtomicUsize,
    /// Size above which the broker refuses a record, if it is known beforehand.
    record_bytes: AtomicUsize,
    has_consumer: AtomicBool,
    read_settings: Notify,
    is_stopped: watch::Sender<bool>,
}

/// The last observation.
#[derive(Debug, Clone, Default)]
struct Observed {
    obstacles: Obstacles,
    /// When the last check began that found no obstacle.
    checked_at: Option<Instant>,
    topic_id: Option<String>,
    settings: Settings,
    offsets: Arc<HashMap<Partition, PartitionOffsets>>,
    /// Ends of the partitions of the topic before it was deleted.
    previous_ends: HashMap<Partition, Offset>,
}

/// Why records cannot be produced or consumed.
#[derive(Debug, Clone, Default)]
struct Obstacles {
    /// The topic is absent or unreachable.
    absent: Option<String>,
    /// Some or all partitions can neither be produced to nor consumed.
    unreachable: Option<String>,
    /// Some or all partitions do not acknowledge records.
    under_replicated: Option<String>,
}

impl Obstacles {
    /// Returns the most specific reason.
    fn first(&self) -> Option<&String> {
        let Self { absent, unreachable, under_replicated } = self;
        absent.as_ref().or(under_replicated.as_ref()).or(unreachable.as_ref())
    }
}

/// Whether records can be produced and consumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicHealth {
    /// Why some or all records cannot be produced, if so.
    pub(super) produce: Option<String>,
    /// Why some or all records cannot be consumed, if so.
    pub(super) consume: Option<String>,
    /// When the last check began that found no obstacle.
    pub(super) checked_at: Option<Instant>,
}

impl Topic {
    /// Starts to monitor the topic. Must be called within a tokio runtime.
    pub(super) fn start(options: Arc<KafkaOptions>) -> Result<Arc<Self>, QueueError> {
        let client = TopicClient::new(&options, false)?;
        let admin = Admin::new(Arc::clone(&options))?;
        let absent = Some("not connected to Kafka yet".to_owned());
        let topic = Arc::new(Self {
            options,
            deliveries: Arc::default(),
            observed: Mutex::new(Observed {
                obstacles: Obstacles { absent, ..Obstacles::default() },
                ..Observed::default()
            }),
            is_confirmed: AtomicBool::new(false),
            incarnation: AtomicU64::new(0),
            group_bytes: AtomicUsize::new(MAX_GROUP_BYTES),
            requests_in_flight: AtomicUsize::new(1),
            record_bytes: AtomicUsize::new(usize::MAX),
            has_consumer: AtomicBool::new(false),
            read_settings: Notify::new(),
            is_stopped: watch::Sender::new(false),
        });
        tokio::spawn(Arc::clone(&topic).monitor(client, admin));
        Ok(topic)
    }

    /// Returns the last observed health.
    pub(super) fn health(&self) -> TopicHealth {
        let observed = self.observed.lock();
        let Obstacles { absent, unreachable, .. } = &observed.obstacles;
        let consume = absent.as_ref().or(unreachable.as_ref()).cloned();
        let produce = observed.obstacles.first().cloned();
        TopicHealth { produce, consume, checked_at: observed.checked_at }
    }

    /// Returns the settings that endanger events.
    pub(super) fn problems(&self) -> Vec<SettingProblem> {
        self.observed.lock().settings.problems.clone()
    }

    /// Returns `true` once it is safe to produce and consume.
    pub(super) fn is_confirmed(&self) -> bool {
        self.is_confirmed.load(Ordering::Acquire)
    }

    /// Returns a number that grows when the topic was deleted and created again.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Returns the id of the topic, if known.
    pub(super) fn topic_id(&self) -> Option<String> {
        self.observed.lock().topic_id.clone()
    }

    /// Returns how long the topic keeps records; `None` if unlimited or unknown.
    pub(super) fn retention(&self) -> Option<Duration> {
        self.observed.lock().settings.retention
    }

    /// Returns the last observed offsets.
    pub(super) fn offsets(&self) -> Arc<HashMap<Partition, PartitionOffsets>> {
        Arc::clone(&self.observed.lock().offsets)
    }

    /// Returns the last observed end of a partition of the topic before it was
    /// deleted.
    pub(super) fn previous_end(&self, partition: Partition) -> Option<Offset> {
        self.observed.lock().previous_ends.get(&partition).copied()
    }

    /// Returns the size above which the broker certainly refuses a record.
    pub(super) fn record_bytes(&self) -> usize {
        self.record_bytes.load(Ordering::Relaxed)
    }

    /// Returns the size limit for a group of records.
    pub(super) fn group_bytes(&self) -> usize {
        self.group_bytes.load(Ordering::Acquire)
    }

    /// Returns the limit for the requests of a producer in flight to each broker, as
    /// of the last check of the topic.
    pub(super) fn requests_in_flight(&self) -> usize {
        self.requests_in_flight.load(Ordering::Relaxed)
    }

    /// Notes that the broker refused a group of at most this size as too large,
    /// although it accepts its records: the limit is unknown or has changed.
    pub(super) fn refused_group_of(&self, bytes: usize) {
        let smaller = (bytes / 2).max(MIN_GROUP_BYTES);
        let changed =
            self.group_bytes.compare_exchange(bytes, smaller, Ordering::AcqRel, Ordering::Relaxed);
        if changed.is_ok() {
            self.read_settings.notify_one();
        }
    }

    /// Observes the consumer group, too, from now on.
    pub(super) fn watch_group(&self) {
        self.has_consumer.store(true, Ordering::Release);
    }

    /// Returns the reason the topic is not usable yet.
    pub(super) fn reason(&self) -> String {
        let absent = self.observed.lock().obstacles.absent.clone();
        absent.unwrap_or_else(|| "the topic was just found".to_owned())
    }

    /// Stops the monitor.
    pub(super) fn stop(&self) {
        self.is_stopped.send_replace(true);
    }

    async fn monitor(self: Arc<Self>, client: TopicClient, mut admin: Admin) {
        let mut client = Arc::new(client);
        let mut settings_at: Option<Instant> = None;
        let mut stopped = self.is_stopped.subscribe();
        loop {
            let has_consumer = self.has_consumer.load(Ordering::Acquire);
            if has_consumer && !client.has_group {
                match TopicClient::new(&self.options, true) {
                    Ok(with_group) => {
                        let previous = std::mem::replace(&mut client, Arc::new(with_group));
                        // Dropping it waits for its threads.
                        tokio::task::spawn_blocking(move || drop(previous));
                    }
                    Err(error) => tracing::warn!(%error, "cannot observe the consumer group"),
                }
            }
            let began = Instant::now();
            let pause = match self.find_or_create(&client, &mut admin).await {
                Ok(found) => {
                    if settings_at.is_none_or(|at| at.elapsed() >= SETTINGS_INTERVAL) {
                        let replicas = found.partitions.iter().map(|info| info.replicas).min();
                        self.read_settings(&mut admin, replicas.unwrap_or(0)).await;
                        settings_at = Some(Instant::now());
                    }
                    self.confirm(&found);
                    let (asked, of) = (Arc::clone(&client), found.clone());
                    let positions = blocking(move || asked.positions(&of)).await;
                    let pause = if positions.is_ok() { READY_INTERVAL } else { ABSENT_INTERVAL };
                    self.publish(&found, positions, began);
                    pause
                }
                Err(reason) => {
                    settings_at = None;
                    // Its callbacks would pile up in memory.
                    admin.disconnect();
                    self.fail(&reason);
                    ABSENT_INTERVAL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.read_settings.notified() => settings_at = None,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        tokio::task::spawn_blocking(move || drop((client, admin)));
    }

    /// Finds the topic, or creates it if it does not exist.
    async fn find_or_create(
        &self,
        client: &Arc<TopicClient>,
        admin: &mut Admin,
    ) -> Result<Found, String> {
        let find = || {
            let client = Arc::clone(client);
            blocking(move || client.find())
        };
        if let Some(found) = find().await? {
            return Ok(found);
        }
        if self.is_confirmed.swap(false, Ordering::AcqRel) {
            let topic = self.options.topic.as_str();
            tracing::error!(topic, "the topic was deleted under the running server; creating it");
        }
        if let Err(reason) = admin.create_topic().await {
            let client = Arc::clone(client);
            return blocking(move || Err(client.explain(&reason))).await;
        }
        find().await?.ok_or_else(|| "the topic was created but is not visible yet".to_owned())
    }

    async fn read_settings(&self, admin: &mut Admin, replicas: usize) {
        let Some(settings) = admin.read_settings(replicas).await else { return };
        if let Some(max) = settings.max_message_bytes {
            self.group_bytes.store(max.min(MAX_GROUP_BYTES), Ordering::Release);
            // The limit applies to compressed records.
            let known = if self.options.compresses() { usize::MAX } else { max };
            self.record_bytes.store(known, Ordering::Relaxed);
        }
        let previous = std::mem::replace(&mut self.observed.lock().settings, settings.clone());
        if previous.problems != settings.problems {
            match describe(&settings.problems) {
                Some(problems) => tracing::warn!("{problems}"),
                None => tracing::info!(topic = self.options.topic, "the topic's settings are fine"),
            }
        }
    }

    /// Allows to produce and consume, and notices whether it is another topic of
    /// the same name.
    fn confirm(&self, found: &Found) {
        let mut observed = self.observed.lock();
        let is_other = match (&observed.topic_id, &found.topic_id) {
            (Some(last), Some(now)) => last != now,
            _ => false,
        };
        if found.topic_id.is_some() {
            observed.topic_id.clone_from(&found.topic_id);
        }
        if is_other {
            let ends = observed.offsets.iter().map(|(id, offsets)| (*id, offsets.end));
            observed.previous_ends = ends.collect();
            observed.offsets = Arc::default();
            self.incarnation.fetch_add(1, Ordering::AcqRel);
        }
        drop(observed);
        if is_other {
            let topic = self.options.topic.as_str();
            tracing::error!(
                topic,
                "the topic was deleted and created again: events that were not stored are lost"
            );
        }
        self.requests_in_flight.store(found.requests_in_flight(), Ordering::Relaxed);
        self.is_confirmed.store(true, Ordering::Release);
    }

    fn publish(&self, found: &Found, positions: Result<Positions, String>, began: Instant) {
        let topic = self.options.topic.as_str();
        let min_in_sync = self.observed.lock().settings.min_in_sync;
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
        self.deliveries.set_cause(reason.clone());
        let mut observed = self.observed.lock();
        let before = std::mem::replace(&mut observed.obstacles, now);
        if reason.is_none() {
            observed.checked_at = Some(began);
        }
        if let Some(offsets) = positions.as_ref().and_then(|positions| positions.offsets.as_ref()) {
            observed.offsets = Arc::new(offsets.clone());
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
        let topic = self.options.topic.as_str();
        self.deliveries.set_cause(Some(reason.to_owned()));
        let previous = self.observed.lock().obstacles.absent.replace(reason.to_owned());
        if previous.as_deref() != Some(reason) {
            tracing::warn!(topic, reason, "Kafka is not ready");
        }
    }
}

/// Returns one message about all problems, or `None` if there is none.
pub(super) fn describe(problems: &[SettingProblem]) -> Option<String> {
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    (!messages.is_empty()).then(|| messages.join("; "))
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
