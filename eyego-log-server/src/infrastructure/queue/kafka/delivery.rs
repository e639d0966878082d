//! Sends a batch of records and collects their results.
//!
//! A batch needs one allocation and one wake-up: each record carries a pointer
//! to the batch's [`Delivery`], whose counter tells when the last record is
//! settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use tokio::sync::oneshot;

use super::KafkaOptions;
use super::deliveries::Deliveries;
use super::reports::{self, Reports};
use crate::domain::queue::AppendError;
use crate::domain::record_batch::RecordBatch;

/// Passing this many records to librdkafka takes longer than a task may block
/// its thread.
const LARGE_BATCH: usize = 1000;

/// The librdkafka producer, with [`Context`] as its callbacks.
pub(super) type Producer = ThreadedProducer<Context>;

/// The result of sending one record.
pub(super) type SendResult = Result<(), SendError>;

/// The reason a record was not acknowledged.
#[derive(Debug, Clone)]
pub(super) enum SendError {
    /// The broker refused the request that contained the record as too large.
    TooLargeRequest(String),
    /// Any other reason, which is about this record.
    Failed(AppendError),
}

/// Sends the records of a batch at these indexes, and returns one result for
/// each.
pub(super) async fn deliver(
    producer: &Arc<Producer>,
    topic: &str,
    batch: RecordBatch,
    indexes: Arc<Vec<usize>>,
    deadline: Instant,
) -> Vec<SendResult> {
    let records = indexes.len();
    if records == 0 {
        return Vec::new();
    }
    let (sender, results) = oneshot::channel();
    let delivery = Arc::new(Delivery {
        unsettled: AtomicUsize::new(records),
        batch,
        indexes,
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
    let reason = match tokio::time::timeout_at(deadline.into(), results).await {
        Ok(Ok(results)) => return results,
        Ok(Err(_)) => "the producer was dropped",
        Err(_) => "Kafka did not acknowledge the records in time",
    };
    producer.context().deliveries.fail(records as u64, reason, Instant::now());
    vec![Err(SendError::Failed(AppendError::Unavailable(reason.to_owned()))); records]
}

fn send(producer: &Producer, topic: &str, delivery: &Arc<Delivery>) {
    let context = producer.context();
    for (position, index) in delivery.indexes.iter().enumerate() {
        let record = delivery.batch.get(*index);
        let message = BaseRecord::with_opaque_to(topic, Arc::clone(delivery))
            .key(record.key)
            .payload(record.value);
        if let Err((error, _)) = producer.send(message) {
            context.note_fatal(&error);
            // librdkafka has checked this record alone.
            let error = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    AppendError::Full("the producer's queue is full".to_owned())
                }
                Some(
                    RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize,
                ) => AppendError::TooLarge(error.to_string()),
                _ => AppendError::Unavailable(context.describe(&error)),
            };
            let (index, error) = (Some(position), SendError::Failed(error));
            delivery.settle_one(Some(Failure { index, value: Vec::new(), error }), context);
        }
    }
}

/// A batch in flight.
pub(super) struct Delivery {
    /// Kept, with its guard, until the last record is settled.
    batch: RecordBatch,
    /// Indexes of the records that were sent.
    indexes: Arc<Vec<usize>>,
    /// Number of records without a result.
    unsettled: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    results: Mutex<Option<oneshot::Sender<Vec<SendResult>>>>,
}

struct Failure {
    /// Position in the indexes. `None` if only the value is known.
    index: Option<usize>,
    value: Vec<u8>,
    error: SendError,
}

impl Delivery {
    fn settle_one(&self, failure: Option<Failure>, context: &Context) {
        if let Some(failure) = failure {
            self.failures.lock().push(failure);
        }
        // AcqRel: the last call must see the failures of all others.
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let failures = std::mem::take(&mut *self.failures.lock());
        context.observe(self.indexes.len(), &failures);
        if let Some(sender) = self.results.lock().take() {
            // The caller may have stopped waiting.
            let _ = sender.send(self.collect_results(failures));
        }
    }

    fn collect_results(&self, failures: Vec<Failure>) -> Vec<SendResult> {
        let mut results: Vec<SendResult> = vec![Ok(()); self.indexes.len()];
        if failures.is_empty() {
            return results;
        }
        // Records are identified by their value, which contains their id. A
        // record that is in the batch twice fails twice.
        let mut positions: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (position, index) in self.indexes.iter().enumerate() {
            positions.entry(self.batch.get(*index).value).or_default().push(position);
        }
        for failure in failures {
            let position = match failure.index {
                Some(position) => Some(position),
                None => positions.get_mut(failure.value.as_slice()).and_then(Vec::pop),
            };
            if let Some(result) = position.and_then(|position| results.get_mut(position)) {
                *result = Err(failure.error);
            }
        }
        results
    }
}

/// Receives librdkafka's callbacks.
pub(super) struct Context {
    is_dead: AtomicBool,
    reports: Reports,
    deliveries: Arc<Deliveries>,
    /// Size limit of the groups that this producer sends.
    pub(super) group_bytes: usize,
}

impl Context {
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        deliveries: Arc<Deliveries>,
        group_bytes: usize,
    ) -> Self {
        let reports = Reports::new(options, "producer");
        Self { is_dead: AtomicBool::new(false), reports, deliveries, group_bytes }
    }

    /// Returns `true` after a fatal error.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    fn note_fatal(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.is_dead.store(true, Ordering::Release);
        }
    }

    /// Describes why a record was not acknowledged. A timeout is explained by the
    /// last error of the client.
    fn describe(&self, error: &KafkaError) -> String {
        let description = self.reports.describe_access(error, "write to");
        let timed_out = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut);
        match self.reports.last_error().filter(|_| timed_out) {
            Some(reason) => format!("{description}: {reason}"),
            None => description,
        }
    }

    /// Notes the outcome of a delivery, even if nobody waits for it any more.
    fn observe(&self, records: usize, failures: &[Failure]) {
        let mut unavailable = failures.iter().filter_map(|failure| match &failure.error {
            SendError::Failed(AppendError::Unavailable(reason)) => Some(reason),
            SendError::Failed(
                AppendError::Full(_)
                | AppendError::Lagging(_)
                | AppendError::OutOfMemory
                | AppendError::TooLarge(_),
            )
            | SendError::TooLargeRequest(_) => None,
        });
        if let Some(reason) = unavailable.next() {
            let count = 1 + unavailable.count();
            self.deliveries.fail(count as u64, reason, Instant::now());
        } else if failures.len() < records && self.deliveries.succeed() {
            self.reports.clear();
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reports.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note_fatal(&error);
        self.reports.error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        match result {
            Ok(_) => delivery.settle_one(None, self),
            Err((error, message)) => {
                self.note_fatal(error);
                let value = message.payload().unwrap_or_default().to_vec();
                let error = match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                        SendError::TooLargeRequest(reports::describe(error))
                    }
                    _ => SendError::Failed(AppendError::Unavailable(self.describe(error))),
                };
                delivery.settle_one(Some(Failure { index: None, value, error }), self);
            }
        }
    }
}
