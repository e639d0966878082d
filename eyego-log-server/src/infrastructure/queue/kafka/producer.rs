//! The librdkafka producers: created once the topic is confirmed, and replaced
//! after a fatal error, when the topic was deleted and created again, or when
//! its size limit changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::producer::Producer as _;

use super::delivery::{Context, Producer};
use super::topic::Topic;
use super::{ClientKind, KafkaOptions, properties};

/// Time after which librdkafka gives up on a record. It is shorter than the
/// API's limit for ingest.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a producer sends records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Many records in one request, which the broker accepts or refuses as one
    /// group.
    Groups,
    /// Each record in a request of its own, so that the broker's verdict is about
    /// this record.
    Singles,
}

/// What a producer depends on; when it changes, the producer is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    incarnation: u64,
    group_bytes: usize,
}

/// The producers of this process.
pub(super) struct KafkaProducer {
    groups: Slot,
    singles: Slot,
    is_closed: AtomicBool,
}

impl KafkaProducer {
    pub(super) fn new(options: &Arc<KafkaOptions>, topic: &Arc<Topic>) -> Self {
        let slot = |mode| Slot {
            mode,
            options: Arc::clone(options),
            topic: Arc::clone(topic),
            current: RwLock::default(),
        };
        Self {
            groups: slot(Mode::Groups),
            singles: slot(Mode::Singles),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Returns the producer for groups of records, creating it if necessary.
    ///
    /// # Errors
    /// Returns the reason if the topic is not confirmed or the server is
    /// shutting down.
    pub(super) fn groups(&self) -> Result<Arc<Producer>, String> {
        self.get(&self.groups)
    }

    /// Returns the producer that sends each record alone.
    ///
    /// # Errors
    /// As [`groups`](Self::groups).
    pub(super) fn singles(&self) -> Result<Arc<Producer>, String> {
        self.get(&self.singles)
    }

    fn get(&self, slot: &Slot) -> Result<Arc<Producer>, String> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err("the server is shutting down".to_owned());
        }
        slot.get()
    }

    /// Replaces the producer after a fatal error, because librdkafka refuses
    /// all further records.
    pub(super) fn replace_if_dead(&self, producer: &Arc<Producer>) {
        if !producer.context().is_dead() {
            return;
        }
        for slot in [&self.groups, &self.singles] {
            let mut current = slot.current.write();
            if current.as_ref().is_some_and(|(_, current)| Arc::ptr_eq(current, producer)) {
                tracing::error!("fatal error of the Kafka producer; replacing it");
                let dead = current.take();
                drop(current);
                // Dropping it joins its thread, which blocks.
                std::thread::spawn(move || drop(dead));
            }
        }
    }

    /// Flushes and closes the producers.
    pub(super) async fn close(&self, deadline: Instant) {
        self.is_closed.store(true, Ordering::Release);
        let producers = [&self.groups, &self.singles].map(|slot| slot.current.write().take());
        let timeout = deadline.saturating_duration_since(Instant::now());
        let flushed = tokio::task::spawn_blocking(move || {
            let mut result = Ok(());
            for (_, producer) in producers.into_iter().flatten() {
                let left = deadline.saturating_duration_since(Instant::now());
                result = result.and(producer.flush(left));
                // Dropping it joins its thread, which blocks while a broker hangs.
                std::thread::spawn(move || drop(producer));
            }
            result
        });
        match tokio::time::timeout(timeout + Duration::from_millis(100), flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the producer was not flushed in time"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the producer was not flushed in time"),
        }
    }
}

/// The current producer of one mode.
struct Slot {
    mode: Mode,
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    current: RwLock<Option<(Version, Arc<Producer>)>>,
}

impl Slot {
    fn version(&self) -> Version {
        Version { incarnation: self.topic.incarnation(), group_bytes: self.topic.group_bytes() }
    }

    fn get(&self) -> Result<Arc<Producer>, String> {
        // While the topic is absent, librdkafka would only let records time out.
        if !self.topic.is_confirmed() {
            return Err(self.topic.reason());
        }
        let version = self.version();
        if let Some((of, producer)) = &*self.current.read()
            && *of == version
        {
            return Ok(Arc::clone(producer));
        }
        let mut current = self.current.write();
        if let Some((of, producer)) = &*current
            && *of == version
        {
            return Ok(Arc::clone(producer));
        }
        let context = Context::new(
            Arc::clone(&self.options),
            Arc::clone(&self.topic.deliveries),
            version.group_bytes,
        );
        let mut config = config(&self.options);
        limit_requests(&mut config, self.topic.requests_in_flight());
        let producer: Producer = with_mode(config, self.mode, version.group_bytes)
            .create_with_context(context)
            .map_err(|error| properties::creation_error(&self.options, &error).message)?;
        let producer = Arc::new(producer);
        let previous = current.replace((version, Arc::clone(&producer)));
        drop(current);
        if let Some((_, previous)) = previous {
            // Dropping it would withdraw the records in flight.
            std::thread::spawn(move || {
                if let Err(error) = previous.flush(MESSAGE_TIMEOUT * 2) {
                    tracing::warn!(%error, "the replaced producer was not flushed in time");
                }
            });
        }
        Ok(producer)
    }
}

pub(super) fn config(options: &KafkaOptions) -> ClientConfig {
    let mut config = options.client("eyego-logger-api");
    let max_kbytes = (options.max_queued_bytes / 1024).clamp(1, 2_147_483_647).to_string();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string())
        // The broker would create a deleted topic with its own settings.
        .set("allow.auto.create.topics", "false")
        // Notices new partitions.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // Callers wait for the linger. Less costs the broker CPU for more
        // requests, more leaves the machine idle (ADR 0042).
        .set("linger.ms", "1")
        .set("queue.buffering.max.kbytes", max_kbytes)
        // The number is unlimited, because the limit in bytes applies.
        .set("queue.buffering.max.messages", "0")
        .set("message.max.bytes", (options.max_record_bytes + (64 << 10)).to_string())
        // This is the default of the Java client and KafkaJS.
        .set("partitioner", "murmur2_random");
    options.finish(config, ClientKind::Producer)
}

/// Limits the requests in flight to each broker, unless the operator did.
fn limit_requests(config: &mut ClientConfig, max: usize) {
    const NAMES: [&str; 2] = ["max.in.flight.requests.per.connection", "max.in.flight"];
    if NAMES.iter().all(|name| config.get(name).is_none()) {
        config.set(NAMES[0], max.to_string());
    }
}

/// Limits the groups that a producer sends.
fn with_mode(mut config: ClientConfig, mode: Mode, group_bytes: usize) -> ClientConfig {
    match mode {
        Mode::Groups => {
            let asked = config.get("batch.size").and_then(|size| size.parse().ok());
            let size = asked.map_or(group_bytes, |asked: usize| asked.min(group_bytes));
            config.set("batch.size", size.to_string());
        }
        Mode::Singles => {
            config.set("batch.num.messages", "1").set("linger.ms", "0");
        }
    }
    config
}
