//! Appends a batch so that the verdict on a record depends on that record alone
//! (ADR 0022).
//!
//! A broker accepts or refuses all records of a request as one group. If it
//! refuses a group as too large, each of its records is sent again, in a request
//! of its own; only a record that is refused then is too large.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;

use super::KafkaOptions;
use super::delivery::{self, SendError, SendResult};
use super::producer::KafkaProducer;
use super::topic::Topic;
use crate::domain::queue::{AppendError, AppendResult, Durable};
use crate::domain::record_batch::RecordBatch;

/// Time after which the caller gets a result even if librdkafka reports none,
/// as when a broker hangs. The API responds within 8 s.
const RESULT_TIMEOUT: Duration = Duration::from_millis(6500);

/// Minimum size of a request around a key and a value.
const FRAME_BYTES: usize = 61;

/// Appends a batch and returns one result per record.
pub(super) async fn append(
    options: &KafkaOptions,
    topic: &Topic,
    producer: &KafkaProducer,
    batch: RecordBatch,
) -> Vec<AppendResult> {
    let deadline = Instant::now() + RESULT_TIMEOUT;
    let mut results: Vec<AppendResult> = vec![Ok(Durable::Queue); batch.len()];
    let max = topic.record_bytes();
    let sent = batch.iter().enumerate().filter_map(|(index, record)| {
        let size = record.key.len() + record.value.len() + FRAME_BYTES;
        if size <= max {
            return Some(index);
        }
        // The broker would refuse it, and with it the others in its request.
        let reason = format!("{size} bytes, and the topic's max.message.bytes is {max}");
        results[index] = Err(AppendError::TooLarge(reason));
        None
    });
    let sent: Arc<Vec<usize>> = Arc::new(sent.collect());
    let groups = match producer.groups() {
        Ok(groups) => groups,
        Err(reason) => return refuse(topic, results, &sent, &reason),
    };
    let (again, indexes) = (batch.clone(), Arc::clone(&sent));
    let in_groups = delivery::deliver(&groups, &options.topic, batch, indexes, deadline).await;
    producer.replace_if_dead(&groups);
    let mut refused = Vec::new();
    for (&index, result) in sent.iter().zip(in_groups) {
        match result {
            Err(SendError::TooLargeRequest(_)) => refused.push(index),
            result => results[index] = verdict(result),
        }
    }
    if refused.is_empty() {
        return results;
    }
    let singles = match producer.singles() {
        Ok(singles) => singles,
        Err(reason) => return refuse(topic, results, &refused, &reason),
    };
    let (refused, batch) = (Arc::new(refused), again);
    let indexes = Arc::clone(&refused);
    let alone = delivery::deliver(&singles, &options.topic, batch, indexes, deadline).await;
    producer.replace_if_dead(&singles);
    if alone.iter().any(Result::is_ok) {
        topic.refused_group_of(groups.context().group_bytes);
    }
    for (&index, result) in refused.iter().zip(alone) {
        results[index] = verdict(result);
    }
    results
}

fn verdict(result: SendResult) -> AppendResult {
    match result {
        Ok(()) => Ok(Durable::Queue),
        Err(SendError::TooLargeRequest(reason)) => Err(AppendError::TooLarge(reason)),
        Err(SendError::Failed(error)) => Err(error),
    }
}

/// Refuses the records at these indexes without an attempt.
fn refuse(
    topic: &Topic,
    mut results: Vec<AppendResult>,
    indexes: &[usize],
    reason: &str,
) -> Vec<AppendResult> {
    topic.deliveries.refuse(indexes.len() as u64, reason, Instant::now());
    for index in indexes {
        results[*index] = Err(AppendError::Unavailable(reason.to_owned()));
    }
    results
}
