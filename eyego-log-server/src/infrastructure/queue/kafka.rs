//! The queue on Apache Kafka.
//!
//! | file | what |
//! |---|---|
//! | `topic` | finds or creates the topic, and watches whether it can be reached |
//! | `producer` | appends: acks=all, idempotent, one wake-up per batch |
//! | `consumer` | a member of the group, whose rebalances the worker answers |

mod consumer;
mod producer;
mod topic;

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::ClientConfig;

use self::consumer::{ConsumerState, KafkaSubscription};
use self::producer::KafkaProducer;
use self::topic::{Topic, TopicState};
use crate::domain::health::{PartHealth, PartState};
use crate::domain::queue::{AppendResult, LogQueue};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::{QueueError, Subscription};

/// How to reach Kafka and what to do there.
#[derive(Clone)]
pub struct KafkaOptions {
    /// Brokers as `host:port`, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The group of the consumers.
    pub group: String,
    /// Partitions of the topic, if it has to be created.
    pub partitions: i32,
    /// Replicas of each partition, if the topic has to be created; `None`: the
    /// broker's default.
    pub replication: Option<i32>,
    /// Properties for librdkafka; they win over ours.
    pub properties: Vec<(String, String)>,
    /// Bytes that wait in the producer at most.
    pub max_queued_bytes: usize,
    /// Bytes that the consumer fetches ahead at most.
    pub max_prefetch_bytes: usize,
    /// Bytes of a record at most.
    pub max_record_bytes: usize,
    /// Whether this process appends.
    pub appends: bool,
}

impl std::fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the properties: there may be a password among them.
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl KafkaOptions {
    /// What every client of ours begins with.
    fn client(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", client_id)
            // After an outage: within a second or so, not ten.
            .set("reconnect.backoff.max.ms", "1000")
            // We log what matters; the rest is for debugging librdkafka.
            .set("log.connection.close", "false");
        config
    }

    /// Lets the operator's properties have the last word. Those of the other
    /// side are left out: librdkafka warns about them.
    fn finish(&self, mut config: ClientConfig, side: Side) -> ClientConfig {
        for (name, value) in &self.properties {
            if side.knows(name) {
                config.set(name, value);
            }
        }
        config
    }
}

/// Which kind of client a property is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Producer,
    Consumer,
    Neither,
}

impl Side {
    fn knows(self, property: &str) -> bool {
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
        let is_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| property.starts_with(prefix));
        let is_producers = is_of(&PRODUCER) || property == "compression.codec";
        match self {
            Self::Producer => !is_of(&CONSUMER),
            Self::Consumer => !is_producers,
            Self::Neither => !is_of(&CONSUMER) && !is_producers,
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
    /// A queue that connects by itself, now or when Kafka is there. To be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// librdkafka does not take a property.
    pub fn start(options: KafkaOptions) -> Result<Arc<Self>, QueueError> {
        let options = Arc::new(options);
        let topic = Topic::start(Arc::clone(&options))?;
        let producer = KafkaProducer::new(Arc::clone(&options), Arc::clone(&topic))?;
        consumer::check(&options)?;
        Ok(Arc::new(Self { options, topic, producer, consumer: Arc::default() }))
    }
}

#[async_trait]
impl LogQueue for KafkaQueue {
    async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        self.producer.append(batch).await
    }

    fn subscribe(&self) -> Result<Box<dyn Subscription>, QueueError> {
        let (options, topic) = (Arc::clone(&self.options), Arc::clone(&self.topic));
        let subscription = KafkaSubscription::new(options, topic, Arc::clone(&self.consumer));
        Ok(Box::new(subscription))
    }

    fn health(&self) -> PartHealth {
        let topic = match self.topic.state() {
            TopicState::Ready { warning: None } => PartState::Up,
            TopicState::Ready { warning: Some(warning) } => PartState::Warning(warning),
            TopicState::Absent(reason) => PartState::Down(reason),
        };
        let state = match (topic, self.consumer.problem()) {
            // Who appends can do that without consuming; who only consumes
            // cannot do anything then.
            (PartState::Up | PartState::Warning(_), Some(problem)) if self.options.appends => {
                PartState::Warning(problem)
            }
            (PartState::Up | PartState::Warning(_), Some(problem)) => PartState::Down(problem),
            (state, _) => state,
        };
        PartHealth { name: "kafka", state }
    }

    async fn close(&self, deadline: std::time::Instant) {
        self.producer.close(deadline).await;
        self.topic.stop();
    }
}
