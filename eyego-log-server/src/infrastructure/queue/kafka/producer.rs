//! Appends to the topic.
//!
//! One allocation and one wake-up per batch: each record carries a pointer to
//! the batch's [`Delivery`], whose count tells when the last one is settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::super::answers::{Answers, NoAnswer, Reply};
use super::topic::Topic;
use super::{KafkaOptions, Side};
use crate::domain::queue::{AppendError, AppendResult, Durable};
use crate::domain::record_batch::RecordBatch;
use crate::domain::subscription::QueueError;

/// What is not acknowledged by then is given up: inside the HTTP deadline.
const MESSAGE_TIMEOUT_MS: &str = "5000";

/// Past this the caller is answered, whatever librdkafka does: its own timeout
/// comes late where a broker hangs. The API promises 8 s.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(6500);

/// Handing this many records to librdkafka takes longer than a task should
/// keep its thread.
const MANY: usize = 1000;

type Inner = ThreadedProducer<Context>;

/// The producer: made when the topic is confirmed, and made anew when
/// librdkafka gives it up.
pub(super) struct KafkaProducer {
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    inner: RwLock<Option<Arc<Inner>>>,
    is_closed: AtomicBool,
}

impl KafkaProducer {
    pub(super) fn new(options: Arc<KafkaOptions>, topic: Arc<Topic>) -> Result<Self, QueueError> {
        // librdkafka checks the properties here, before there is any traffic.
        config(&options)
            .create_native_config()
            .map_err(|error| QueueError::because("EYEGO_KAFKA_PROPERTIES", error))?;
        Ok(Self { options, topic, inner: RwLock::new(None), is_closed: AtomicBool::new(false) })
    }

    pub(super) async fn append(&self, batch: RecordBatch) -> Vec<AppendResult> {
        let records = batch.len();
        if records == 0 {
            return Vec::new();
        }
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(reason) => return unavailable(&reason, records),
        };
        let (answer, answered) = producer.context().answers.expect();
        let delivery = Arc::new(Delivery {
            left: AtomicUsize::new(records),
            batch,
            failures: Mutex::default(),
            answer: Mutex::new(Some(answer)),
        });
        if records < MANY {
            send(&producer, &self.options.topic, &delivery);
        } else {
            let (producer, topic) = (Arc::clone(&producer), self.options.topic.clone());
            let work = move || send(&producer, &topic, &delivery);
            // If it panics, the channel closes, and that is handled below.
            let _ = tokio::task::spawn_blocking(work).await;
        }
        let results = match answered.await {
            Ok(results) => results,
            Err(NoAnswer::Gone) => unavailable("the producer was dropped", records),
            Err(NoAnswer::Late) => unavailable("no answer in time", records),
        };
        self.replace_if_dead(&producer);
        results
    }

    fn producer(&self) -> Result<Arc<Inner>, String> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err("the server is stopping".to_owned());
        }
        if let Some(producer) = &*self.inner.read() {
            return Ok(Arc::clone(producer));
        }
        if !self.topic.is_confirmed() {
            return Err(self.topic.reason());
        }
        let mut inner = self.inner.write();
        if let Some(producer) = &*inner {
            return Ok(Arc::clone(producer));
        }
        let context =
            Context { is_dead: AtomicBool::new(false), answers: Answers::within(ANSWER_TIMEOUT) };
        let producer: Inner = config(&self.options)
            .create_with_context(context)
            .map_err(|error| format!("cannot create the producer: {error}"))?;
        let producer = Arc::new(producer);
        *inner = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// After a fatal error librdkafka refuses everything for good.
    fn replace_if_dead(&self, producer: &Arc<Inner>) {
        if !producer.context().is_dead.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.inner.write();
        if inner.as_ref().is_some_and(|current| Arc::ptr_eq(current, producer)) {
            tracing::error!("the Kafka producer failed for good; making a new one");
            let dead = inner.take();
            drop(inner);
            // Dropping joins its thread.
            std::thread::spawn(move || drop(dead));
        }
    }

    pub(super) async fn close(&self, deadline: std::time::Instant) {
        self.is_closed.store(true, Ordering::Release);
        let inner = self.inner.write().take();
        let Some(producer) = inner else { return };
        let timeout = deadline.saturating_duration_since(std::time::Instant::now());
        let flushed = tokio::task::spawn_blocking(move || {
            let result = producer.flush(timeout);
            // Dropping joins its thread, which a hung broker may hold.
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

fn config(options: &KafkaOptions) -> rdkafka::ClientConfig {
    let mut config = options.client("eyego-logger-api");
    let max_kbytes = (options.max_queued_bytes / 1024).clamp(1, 2_147_483_647).to_string();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
        // Linger is the caller's wait, so it is short. librdkafka sends a request
        // for each partition, and each costs the broker as much as many records:
        // at 1 ms it takes a fifth more CPU than at 2, and callers hardly wait
        // less; at 2 ms 128 callers that wait for their answers leave a sixth of
        // the machine idle.
        .set("linger.ms", "1.4")
        .set("queue.buffering.max.kbytes", max_kbytes)
        // The bytes above are the bound.
        .set("queue.buffering.max.messages", "0")
        .set("message.max.bytes", (options.max_record_bytes + (64 << 10)).to_string())
        // As Java and KafkaJS do it.
        .set("partitioner", "murmur2_random");
    options.finish(config, Side::Producer)
}

fn send(producer: &Inner, topic: &str, delivery: &Arc<Delivery>) {
    for (index, record) in delivery.batch.iter().enumerate() {
        let message = BaseRecord::with_opaque_to(topic, Arc::clone(delivery))
            .key(record.key)
            .payload(record.value);
        if let Err((error, _)) = producer.send(message) {
            if is_fatal(&error) {
                producer.context().is_dead.store(true, Ordering::Release);
            }
            let failure =
                Failure { index: Some(index), value: Vec::new(), error: append_error(&error) };
            producer.context().settle_one(delivery, Some(failure));
        }
    }
}

fn unavailable(reason: &str, records: usize) -> Results {
    vec![Err(AppendError::Unavailable(reason.to_owned())); records]
}

fn append_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Full("the producer is full".to_owned()),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            AppendError::TooLarge(error.to_string())
        }
        _ => AppendError::Unavailable(error.to_string()),
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

type Results = Vec<AppendResult>;

/// One batch under way.
struct Delivery {
    /// Kept until the last record is settled; with it the share of the budget.
    batch: RecordBatch,
    left: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    answer: Mutex<Option<Reply<Results>>>,
}

struct Failure {
    /// `None` where only the record's bytes are known.
    index: Option<usize>,
    value: Vec<u8>,
    error: AppendError,
}

impl Delivery {
    fn results(&self) -> Results {
        let mut results: Results = vec![Ok(Durable::Queue); self.batch.len()];
        let failures = std::mem::take(&mut *self.failures.lock());
        if failures.is_empty() {
            return results;
        }
        // Records are told apart by their bytes: they hold the id. The same
        // record twice in a batch fails twice.
        let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, record) in self.batch.iter().enumerate() {
            places.entry(record.value).or_default().push(index);
        }
        for failure in failures {
            let index = match failure.index {
                Some(index) => Some(index),
                None => places.get_mut(failure.value.as_slice()).and_then(Vec::pop),
            };
            if let Some(result) = index.and_then(|index| results.get_mut(index)) {
                *result = Err(failure.error);
            }
        }
        results
    }
}

/// Hears what became of each record.
struct Context {
    is_dead: AtomicBool,
    answers: Answers<Results>,
}

impl Context {
    fn settle_one(&self, delivery: &Delivery, failure: Option<Failure>) {
        if let Some(failure) = failure {
            delivery.failures.lock().push(failure);
        }
        // AcqRel: the last one must see the failures of all others.
        if delivery.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if let Some(waiting) = delivery.answer.lock().take() {
            waiting.send(delivery.results());
        }
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if is_fatal(&error) {
            self.is_dead.store(true, Ordering::Release);
        }
        tracing::debug!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        match result {
            Ok(_) => self.settle_one(&delivery, None),
            Err((error, message)) => {
                if is_fatal(error) {
                    self.is_dead.store(true, Ordering::Release);
                }
                let value = message.payload().unwrap_or_default().to_vec();
                let failure = Failure { index: None, value, error: append_error(error) };
                self.settle_one(&delivery, Some(failure));
            }
        }
    }
}
