//! The librdkafka producer: created once the topic is confirmed, and replaced
//! after a fatal error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::producer::Producer as _;

use super::delivery::{Context, Producer};
use super::topic::Topic;
use super::{ClientKind, KafkaOptions, properties};

/// Time after which librdkafka gives up on a record. It is shorter than the
/// API's limit for ingest.
const MESSAGE_TIMEOUT_MS: &str = "5000";

/// Creates the current producer, and replaces it if it is dead.
pub(super) struct KafkaProducer {
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    current: RwLock<Option<Arc<Producer>>>,
    is_closed: AtomicBool,
}

impl KafkaProducer {
    pub(super) fn new(options: Arc<KafkaOptions>, topic: Arc<Topic>) -> Self {
        Self { options, topic, current: RwLock::new(None), is_closed: AtomicBool::new(false) }
    }

    /// Returns the current producer, creating it if necessary.
    ///
    /// # Errors
    /// Returns the reason if the topic is not confirmed or the server is
    /// shutting down.
    pub(super) fn get(&self) -> Result<Arc<Producer>, String> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err("the server is shutting down".to_owned());
        }
        if let Some(producer) = &*self.current.read() {
            return Ok(Arc::clone(producer));
        }
        if !self.topic.is_confirmed() {
            return Err(self.topic.reason());
        }
        let mut current = self.current.write();
        if let Some(producer) = &*current {
            return Ok(Arc::clone(producer));
        }
        let producer: Producer = config(&self.options)
            .create_with_context(Context::default())
            .map_err(|error| properties::creation_error(&self.options, &error).message)?;
        let producer = Arc::new(producer);
        *current = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Replaces the producer after a fatal error, because librdkafka refuses
    /// all further records.
    pub(super) fn replace_if_dead(&self, producer: &Arc<Producer>) {
        if !producer.context().is_dead() {
            return;
        }
        let mut current = self.current.write();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, producer)) {
            tracing::error!("fatal error of the Kafka producer; replacing it");
            let dead = current.take();
            drop(current);
            // Dropping it joins its thread, which blocks.
            std::thread::spawn(move || drop(dead));
        }
    }

    /// Flushes and closes the producer.
    pub(super) async fn close(&self, deadline: std::time::Instant) {
        self.is_closed.store(true, Ordering::Release);
        let current = self.current.write().take();
        let Some(producer) = current else { return };
        let timeout = deadline.saturating_duration_since(std::time::Instant::now());
        let flushed = tokio::task::spawn_blocking(move || {
            let result = producer.flush(timeout);
            // Dropping it joins its thread, which blocks while a broker hangs.
            std::thread::spawn(move || drop(producer));
            result
        });
        match tokio::time::timeout(timeout + Duration::from_millis(100), flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the producer was not flushed in time"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the producer was not flushed in time"),
        }
    }
}

pub(super) fn config(options: &KafkaOptions) -> rdkafka::ClientConfig {
    let mut config = options.client("eyego-logger-api");
    let max_kbytes = (options.max_queued_bytes / 1024).clamp(1, 2_147_483_647).to_string();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
        // Callers wait for the linger. Less costs the broker CPU for more
        // requests, more leaves the machine idle (ADR 0011).
        .set("linger.ms", "1.4")
        .set("queue.buffering.max.kbytes", max_kbytes)
        // Unlimited: the limit in bytes applies.
        .set("queue.buffering.max.messages", "0")
        .set("message.max.bytes", (options.max_record_bytes + (64 << 10)).to_string())
        // The default of the Java client and KafkaJS.
        .set("partitioner", "murmur2_random");
    options.finish(config, ClientKind::Producer)
}
