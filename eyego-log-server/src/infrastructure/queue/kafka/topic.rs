//! Finds or creates the topic, and monitors it: whether records can be produced
//! and consumed, its settings, and its offsets.
//!
//! Nothing is produced or consumed before the topic is confirmed. Otherwise the
//! broker might create it with its default number of partitions, and changing
//! that number later would move keys between partitions.
//!
//! | module | contents |
//! |---|---|
//! | `monitor` | the background task |
//! | `observed` | what was last observed |
//! | `client` | requests about the topic and the group |
//! | `create` | creates the topic and reads its settings |
//! | `group` | what the group's offsets and assignments say (pure) |
//! | `identity` | which topic of that name exists (pure) |
//! | `settings` | which settings endanger events (pure) |

mod client;
mod create;
pub(super) mod group;
mod identity;
mod monitor;
mod observed;
mod settings;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub(super) use self::client::PartitionOffsets;
use self::monitor::Monitor;
use self::observed::{Observed, Obstacles};
pub(super) use self::settings::describe;
use super::KafkaOptions;
use super::deliveries::Deliveries;
use crate::domain::position::{Offset, Partition};
use crate::domain::queue::SettingProblem;
use crate::domain::subscription::QueueError;

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
    check_now: Notify,
    is_stopped: watch::Sender<bool>,
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
            check_now: Notify::new(),
            is_stopped: watch::Sender::new(false),
        });
        tokio::spawn(Monitor::new(Arc::clone(&topic))?.run());
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
        self.observed.lock().identity.id().map(str::to_owned)
    }

    /// Returns how long the topic keeps records; `None` if unlimited or unknown.
    pub(super) fn retention(&self) -> Option<Duration> {
        self.observed.lock().settings.retention
    }

    /// Returns the last observed offsets.
    pub(super) fn offsets(&self) -> Arc<HashMap<Partition, PartitionOffsets>> {
        Arc::clone(&self.observed.lock().offsets)
    }

    /// Returns the number of records of a partition, at and above `next`, that were
    /// not stored when the topic was deleted, as of its last observed offsets.
    pub(super) fn lost_with_the_deleted(&self, partition: Partition, next: Offset) -> u64 {
        self.observed.lock().identity.lost(partition, next)
    }

    /// Checks the topic without waiting for the next regular check.
    pub(super) fn check_now(&self) {
        self.check_now.notify_one();
    }

    /// Returns `true` if the topic was found by a check that began at `at` or later.
    pub(super) fn is_found_since(&self, at: Instant) -> bool {
        self.observed.lock().found_at.is_some_and(|found_at| found_at >= at)
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
}
