//! The queue on Apache Kafka.
//!
//! | module | contents |
//! |---|---|
//! | `topic` | finds or creates the topic, and monitors it |
//! | `append` | appends a batch so that the verdict on a record depends on it alone |
//! | `producer` | creates and replaces the librdkafka producers |
//! | `delivery` | sends records and collects their results |
//! | `deliveries` | the observed outcomes of deliveries |
//! | `consumer` | a member of the consumer group |
//! | `reports` | errors and log lines of librdkafka |
//! | `properties` | reports properties that librdkafka rejects |

mod append;
mod consumer;
mod deliveries;
mod delivery;
mod producer;
mod properties;
mod reports;
mod topic;

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::ClientConfig;

use self::consumer::{ConsumerState, KafkaSubscription};
use self::producer::KafkaProducer;
use self::topic::Topic;
use crate::domain::health::{PartHealth, PartState};
use crate::domain::queue::{AppendResult, LogQueue, SettingProblem};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{QueueError, Subscription};

/// How to reach Kafka, and the topic to use.
#[derive(Clone)]
pub struct KafkaOptions {
    /// Brokers as `host:port`, separated by commas.
    pub brokers: String,
    /// Name of the topic.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// Number of partitions, if the topic has to be created.
    pub partitions: i32,
    /// Replicas per partition, if the topic has to be created. `None` selects
    /// the broker's default.
    pub replication: Option<i32>,
    /// Properties for librdkafka, which override those set here.
    pub properties: Vec<(String, String)>,
    /// Maximum bytes queued in the producer.
    pub max_queued_bytes: usize,
    /// Maximum bytes that the consumer prefetches.
    pub max_prefetch_bytes: usize,
    /// Maximum size of a record, in bytes.
    pub max_record_bytes: usize,
    /// Whether this process appends records.
    pub appends: bool,
}

impl std::fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The properties are left out because they may contain a password.
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl KafkaOptions {
    /// Returns the configuration that all clients share.
    fn client(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", client_id)
            // Reconnects about 1 s after an outage instead of 10 s.
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false");
        config
    }

    /// Returns `true` if records are compressed, so that their size in a request
    /// is unknown beforehand.
    fn compresses(&self) -> bool {
        let is_compression = |name: &str| matches!(name, "compression.type" | "compression.codec");
        let none = |value: &str| value == "none";
        self.properties.iter().any(|(name, value)| is_compression(name) && !none(value))
    }

    /// Applies the operator's properties, which take precedence. Properties
    /// for another kind of client are skipped, because librdkafka warns about
    /// them.
    fn finish(&self, mut config: ClientConfig, kind: ClientKind) -> ClientConfig {
        for (name, value) in &self.properties {
            if kind.accepts(name) {
                config.set(name, value);
            }
        }
        config
    }
}

/// The kind of client that a property applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Producer,
    Consumer,
    Admin,
}

impl ClientKind {
    fn accepts(self, property: &str) -> bool {
        const PRODUCER: [&str; 10] = [
            "batch.",
            "compression.",
            "dr.",
            "linger.ms",
            "message.send.max.retries",
            "message.timeout.ms",
            "queue.buffering.",
            "request.timeout.ms",
            "retries",
            "sticky.",
        ];
        const CONSUMER: [&str; 11] = [
            "check.crcs",
            "fetch.",
            "group.",
            "heartbeat.",
            "max.partition.fetch.bytes",
            "max.poll.",
            "partition.assignment.",
            "queued.",
            "session.timeout.ms",
            "offset.",
            "consume.",
        ];
        let has_any =
            |prefixes: &[&str]| prefixes.iter().any(|prefix| property.starts_with(prefix));
        let is_for_producers = has_any(&PRODUCER) || property == "compression.codec";
        match self {
            Self::Producer => !has_any(&CONSUMER),
            Self::Consumer => !is_for_producers,
            Self::Admin => !has_any(&CONSUMER) && !is_for_producers,
        }
    }
}

/// The queue on Kafka.
pub struct KafkaQueue {
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    producer: KafkaProducer,
    consumer: Arc<ConsumerState>,
}

impl std::fmt::Debug for KafkaQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaQueue").field("options", &self.options).finish_non_exhaustive()
    }
}

impl KafkaQueue {
    /// Creates a queue that connects in the background as soon as Kafka is
    /// reachable. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if librdkafka rejects a property.
    pub fn start(options: KafkaOptions) -> Result<Arc<Self>, QueueError> {
        let options = Arc::new(options);
        let admin = options.finish(options.client("eyego-topic"), ClientKind::Admin);
        let configs = [admin, producer::config(&options), consumer::config(&options)];
        configs.iter().try_for_each(properties::check)?;
        let topic = Topic::start(Arc::clone(&options))?;
        let producer = KafkaProducer::new(&options, &topic);
        Ok(Arc::new(Self { options, topic, producer, consumer: Arc::default() }))
    }
}

#[async_trait]
impl LogQueue for KafkaQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        append::append(&self.options, &self.topic, &self.producer, batch).await
    }

    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError> {
        let (options, topic) = (Arc::clone(&self.options), Arc::clone(&self.topic));
        let subscription = KafkaSubscription::new(options, topic, Arc::clone(&self.consumer));
        Ok(Box::new(subscription))
    }

    fn health(&self) -> PartHealth {
        let topic = self.topic.health();
        let consumer = self.consumer.problem(topic.checked_at);
        // A process that appends is useful even if it cannot consume, and the
        // other way round.
        let (down, warning) = if self.options.appends {
            (topic.produce, consumer)
        } else {
            (topic.consume.or(consumer), topic.produce)
        };
        let delivery = match self.topic.deliveries.health(topic.checked_at) {
            PartState::Up => None,
            PartState::Warning(reason) => Some(reason),
            PartState::Down(reason) => {
                let reason = down.unwrap_or(reason);
                return PartHealth { name: "kafka", state: PartState::Down(reason) };
            }
        };
        if let Some(reason) = down {
            return PartHealth { name: "kafka", state: PartState::Down(reason) };
        }
        let settings = topic::describe(&self.topic.problems());
        let warnings: Vec<_> = [delivery, warning, settings].into_iter().flatten().collect();
        let state = if warnings.is_empty() {
            PartState::Up
        } else {
            PartState::Warning(warnings.join("; "))
        };
        PartHealth { name: "kafka", state }
    }

    fn setting_problems(&self) -> Vec<SettingProblem> {
        self.topic.problems()
    }

    async fn close(&self, deadline: std::time::Instant) {
        self.producer.close(deadline).await;
        self.topic.stop();
    }
}
