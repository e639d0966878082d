//! Sends a batch of records and collects their results.
//!
//! A batch needs one allocation and one wake-up: each record carries a pointer
//! to the batch's [`Delivery`], whose counter tells when the last record is
//! settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use tokio::sync::oneshot;

use crate::domain::queue::{AppendError, AppendResult, Durable};
use crate::domain::record_batch::RecordBatch;

/// Time after which the caller gets a result even if librdkafka reports none,
/// as when a broker hangs. The API responds within 8 s.
const RESULT_TIMEOUT: Duration = Duration::from_millis(6500);

/// Passing this many records to librdkafka takes longer than a task may block
/// its thread.
const LARGE_BATCH: usize = 1000;

/// The librdkafka producer, with [`Context`] as its callbacks.
pub(super) type Producer = ThreadedProducer<Context>;

type Results = Vec<AppendResult>;

/// Sends a batch and returns one result per record.
pub(super) async fn deliver(producer: &Arc<Producer>, topic: &str, batch: RecordBatch) -> Results {
    let records = batch.len();
    if records == 0 {
        return Vec::new();
    }
    let deadline = tokio::time::Instant::now() + RESULT_TIMEOUT;
    let (sender, results) = oneshot::channel();
    let delivery = Arc::new(Delivery {
        unsettled: AtomicUsize::new(records),
        batch,
        failures: Mutex::default(),
        results: Mutex::new(Some(sender)),
    });
    if records < LARGE_BATCH {
        send(producer, topic, &delivery);
    } else {
        let (producer, topic) = (Arc::clone(producer), topic.to_owned());
        let work = move || send(&producer, &topic, &delivery);
        // If it panics, the channel closes, which is handled below.
        let _ = tokio::task::spawn_blocking(work).await;
    }
    match tokio::time::timeout_at(deadline, results).await {
        Ok(Ok(results)) => results,
        Ok(Err(_)) => unavailable("the producer was dropped", records),
        Err(_) => unavailable("Kafka did not acknowledge the records in time", records),
    }
}

/// Returns a failure for each record.
pub(super) fn unavailable(reason: &str, records: usize) -> Results {
    vec![Err(AppendError::Unavailable(reason.to_owned())); records]
}

fn send(producer: &Producer, topic: &str, delivery: &Arc<Delivery>) {
    for (index, record) in delivery.batch.iter().enumerate() {
        let message = BaseRecord::with_opaque_to(topic, Arc::clone(delivery))
            .key(record.key)
            .payload(record.value);
        if let Err((error, _)) = producer.send(message) {
            producer.context().note_fatal(&error);
            let error = append_error(&error);
            delivery.settle_one(Some(Failure { index: Some(index), value: Vec::new(), error }));
        }
    }
}

fn append_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => {
            AppendError::Full("the producer's queue is full".to_owned())
        }
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            AppendError::TooLarge(error.to_string())
        }
        _ => AppendError::Unavailable(error.to_string()),
    }
}

/// A batch in flight.
pub(super) struct Delivery {
    /// Kept, with its guard, until the last record is settled.
    batch: RecordBatch,
    /// Number of records without a result.
    unsettled: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    results: Mutex<Option<oneshot::Sender<Results>>>,
}

struct Failure {
    /// `None` if only the value is known.
    index: Option<usize>,
    value: Vec<u8>,
    error: AppendError,
}

impl Delivery {
    fn settle_one(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.failures.lock().push(failure);
        }
        // AcqRel: the last call must see the failures of all others.
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if let Some(sender) = self.results.lock().take() {
            // The caller may have stopped waiting.
            let _ = sender.send(self.collect_results());
        }
    }

    fn collect_results(&self) -> Results {
        let mut results: Results = vec![Ok(Durable::Queue); self.batch.len()];
        let failures = std::mem::take(&mut *self.failures.lock());
        if failures.is_empty() {
            return results;
        }
        // Records are identified by their value, which contains their id. A
        // record that is in the batch twice fails twice.
        let mut indexes: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, record) in self.batch.iter().enumerate() {
            indexes.entry(record.value).or_default().push(index);
        }
        for failure in failures {
            let index = match failure.index {
                Some(index) => Some(index),
                None => indexes.get_mut(failure.value.as_slice()).and_then(Vec::pop),
            };
            if let Some(result) = index.and_then(|index| results.get_mut(index)) {
                *result = Err(failure.error);
            }
        }
        results
    }
}

/// Receives librdkafka's callbacks.
#[derive(Default)]
pub(super) struct Context {
    is_dead: AtomicBool,
}

impl Context {
    /// Returns `true` after a fatal error.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    fn note_fatal(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.is_dead.store(true, Ordering::Release);
        }
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        self.note_fatal(&error);
        tracing::debug!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        match result {
            Ok(_) => delivery.settle_one(None),
            Err((error, message)) => {
                self.note_fatal(error);
                let value = message.payload().unwrap_or_default().to_vec();
                let error = append_error(error);
                delivery.settle_one(Some(Failure { index: None, value, error }));
            }
        }
    }
}
