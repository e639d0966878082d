//! A member of the consumer group.
//!
//! librdkafka reports a rebalance in a callback and continues once partitions
//! are assigned or unassigned. That happens outside the callback (ADR 0019): the
//! worker receives a [`Signal`], settles and commits its records, and then
//! releases the partitions. `context` contains the callback.

mod context;
mod gaps;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use eyego_log_core::Timestamp;
use parking_lot::Mutex;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{
    Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem,
};

use self::context::{Context, Rebalance, unassign};
use self::gaps::{Gap, Gaps};
use super::topic::Topic;
use super::{ClientKind, KafkaOptions, properties};
use crate::domain::position::{Offset, Partition};
use crate::domain::subscription::{Delivered, QueueError, RecordSink, Signal, Subscription};

/// Time without heartbeats after which a member's partitions move to others.
/// Records wait this long after a worker was killed; Kafka's default is 45 s.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of records per poll.
const RECORDS_PER_POLL: usize = 500;

/// Timeout of a request to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time to wait for the group when leaving it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// State of this process's consumer, for readiness.
#[derive(Debug, Default)]
pub(super) struct ConsumerState {
    problem: Mutex<Option<String>>,
}

impl ConsumerState {
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }
}

pub(super) fn config(options: &KafkaOptions) -> rdkafka::ClientConfig {
    let mut config = options.client("eyego-worker");
    config
        .set("group.id", &options.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
        .set("heartbeat.interval.ms", "3000")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("queued.max.messages.kbytes", (options.max_prefetch_bytes / 1024).max(1).to_string())
        // By default the broker responds as soon as it has one record, so that
        // under load each fetch returns only a few.
        .set("fetch.min.bytes", "100000")
        .set("fetch.wait.max.ms", "25")
        // By default, fetching pauses for 1 s when the prefetch queue is full.
        .set("fetch.queue.backoff.ms", "20")
        .set("statistics.interval.ms", "5000");
    options.finish(config, ClientKind::Consumer)
}

/// A member of the group. Its consumer is created once the topic is confirmed,
/// because subscribing to an absent topic could create it.
pub(super) struct KafkaSubscription {
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    state: Arc<ConsumerState>,
    consumer: Option<BaseConsumer<Context>>,
    /// Partitions that were revoked and are not released yet.
    unreleased: Option<TopicPartitionList>,
    /// Offsets that this member committed. A commit never moves back.
    committed: HashMap<Partition, Offset>,
    gaps: Gaps,
    is_paused: bool,
}

impl KafkaSubscription {
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        topic: Arc<Topic>,
        state: Arc<ConsumerState>,
    ) -> Self {
        state.set(Some("joining the consumer group".to_owned()));
        Self {
            options,
            topic,
            state,
            consumer: None,
            unreleased: None,
            committed: HashMap::new(),
            gaps: Gaps::default(),
            is_paused: false,
        }
    }

    fn connect(&mut self, timeout: Duration) -> Result<(), QueueError> {
        if !self.topic.is_confirmed() {
            // Health and the log already contain the reason.
            std::thread::sleep(timeout);
            return Ok(());
        }
        let failed = |error| QueueError::because("cannot join the consumer group", error);
        let consumer: BaseConsumer<Context> = config(&self.options)
            .create_with_context(Context::default())
            .map_err(|error| properties::creation_error(&self.options, &error))?;
        consumer.subscribe(&[&self.options.topic]).map_err(failed)?;
        self.consumer = Some(consumer);
        Ok(())
    }

    /// Accepts an assignment, or reports a revocation.
    fn handle_rebalance(&mut self, rebalance: Rebalance) -> Result<Signal, QueueError> {
        let Some(consumer) = &self.consumer else { return Ok(Signal::None) };
        let partitions = |list: &TopicPartitionList| -> Vec<Partition> {
            list.elements().iter().map(TopicPartitionListElem::partition).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => {
                let assigned = match consumer.rebalance_protocol() {
                    RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
                    RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.assign(&list),
                };
                assigned.map_err(|error| QueueError::because("cannot accept partitions", error))?;
                self.gaps.expect(&committed_offsets(consumer, &list));
                // Resumes even if nothing is paused now: a partition that was paused when it was
                // revoked is still paused in librdkafka.
                let flow =
                    if self.is_paused { consumer.pause(&list) } else { consumer.resume(&list) };
                flow.map_err(|error| QueueError::because("cannot pause or resume", error))?;
                self.state.set(None);
                Ok(Signal::Assigned(partitions(&list)))
            }
            Rebalance::Revoke { list, is_lost } => {
                let names = partitions(&list);
                for partition in &names {
                    self.committed.remove(partition);
                    self.gaps.forget(*partition);
                }
                self.unreleased = Some(list);
                if is_lost {
                    Ok(Signal::Lost(names))
                } else {
                    Ok(Signal::Revoked(names, SESSION_TIMEOUT / 2))
                }
            }
        }
    }

    fn record_error(&self, error: &KafkaError) -> QueueError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InconsistentGroupProtocol) => {
                let group = &self.options.group;
                let reason = format!(
                    "members of the consumer group {group} use another assignment strategy \
                     (perhaps workers of the legacy service): joining when they have left"
                );
                self.state.set(Some(reason.clone()));
                return QueueError::new(reason);
            }
            // The topic's monitor reports whether the brokers are reachable.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => {}
            _ => self.state.set(Some(format!("consumer group: {error}"))),
        }
        QueueError::new(format!("Kafka: {error}"))
    }
}

/// Returns the group's committed offsets for these partitions.
fn committed_offsets(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> Vec<(Partition, Offset)> {
    // If the request fails, records that expired before the first delivery are
    // not counted. That must not delay the assignment.
    let committed = consumer.committed_offsets(list.clone(), REQUEST_TIMEOUT);
    let committed = committed.map(|list| {
        let offsets = list.elements().into_iter().map(|elem| (elem.partition(), elem.offset()));
        offsets.filter_map(|(partition, offset)| Some((partition, offset.to_raw()?))).collect()
    });
    committed.unwrap_or_default()
}

/// Returns the number of records in a gap that the topic has deleted, if any.
/// Other gaps are transaction markers or compacted records.
fn expired_in(consumer: &BaseConsumer<Context>, topic: &str, gap: &Gap) -> Option<u64> {
    let watermarks = consumer.fetch_watermarks(topic, gap.partition, REQUEST_TIMEOUT);
    let (low, _) = watermarks.ok()?;
    gap.below(low)
}

fn deliver(message: &BorrowedMessage<'_>, sink: &mut RecordSink<'_>) -> std::ops::ControlFlow<()> {
    let queued_at = message.timestamp().to_millis().unwrap_or(0);
    sink(Delivered {
        partition: message.partition(),
        offset: message.offset(),
        queued_at: Timestamp::from_millis_clamped(queued_at),
        value: message.payload(),
    })
}

impl Subscription for KafkaSubscription {
    fn poll(&mut self, timeout: Duration, sink: &mut RecordSink<'_>) -> Result<Signal, QueueError> {
        if self.consumer.is_none() {
            self.connect(timeout)?;
        }
        let Some(consumer) = &self.consumer else { return Ok(Signal::None) };
        let deadline = Instant::now() + timeout;
        let mut delivered = 0;
        let mut outcome = Ok(Signal::None);
        while delivered < RECORDS_PER_POLL {
            let wait = if delivered == 0 {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    delivered += 1;
                    let committed = self.committed.get(&message.partition());
                    if committed.is_some_and(|committed| message.offset() < *committed) {
                        // The topic was recreated, so its offsets restart.
                        self.committed.remove(&message.partition());
                    }
                    let is_enough = deliver(&message, sink).is_break();
                    if let Some(gap) = self.gaps.deliver(message.partition(), message.offset())
                        && let Some(expired) = expired_in(consumer, &self.options.topic, &gap)
                    {
                        outcome = Ok(Signal::Expired(gap.partition, expired));
                        break;
                    }
                    if is_enough {
                        break;
                    }
                }
                Some(Err(error)) => {
                    outcome = Err(self.record_error(&error));
                    break;
                }
                None => break,
            }
        }
        if delivered > 0 {
            self.state.set(None);
        }
        if matches!(outcome, Ok(Signal::Expired(..))) {
            return outcome;
        }
        let rebalance = consumer.context().rebalances.lock().pop_front();
        match rebalance {
            Some(rebalance) => self.handle_rebalance(rebalance),
            None => outcome,
        }
    }

    fn commit(&mut self, next_offsets: &[(Partition, Offset)]) -> Result<(), QueueError> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        for (partition, next_offset) in next_offsets {
            if self.committed.get(partition).is_some_and(|committed| next_offset <= committed) {
                continue;
            }
            list.add_partition_offset(
                &self.options.topic,
                *partition,
                KafkaOffset::Offset(*next_offset),
            )
            .map_err(|error| QueueError::because("cannot commit", error))?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        consumer
            .commit(&list, CommitMode::Sync)
            .map_err(|error| QueueError::because("cannot commit", error))?;
        for (partition, next_offset) in next_offsets {
            let committed = self.committed.entry(*partition).or_insert(*next_offset);
            *committed = (*committed).max(*next_offset);
        }
        Ok(())
    }

    fn release(&mut self) {
        let (Some(consumer), Some(list)) = (&self.consumer, self.unreleased.take()) else { return };
        if let Err(error) = unassign(consumer, &list) {
            tracing::warn!(%error, "cannot release partitions");
        }
    }

    fn pause(&mut self) -> Result<(), QueueError> {
        if let Some(consumer) = &self.consumer {
            let paused = consumer.assignment().and_then(|list| consumer.pause(&list));
            paused.map_err(|error| QueueError::because("cannot pause", error))?;
        }
        self.is_paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), QueueError> {
        if let Some(consumer) = &self.consumer {
            let resumed = consumer.assignment().and_then(|list| consumer.resume(&list));
            resumed.map_err(|error| QueueError::because("cannot resume", error))?;
        }
        self.is_paused = false;
        Ok(())
    }

    fn lag(&self) -> Vec<(Partition, u64)> {
        let Some(consumer) = &self.consumer else { return Vec::new() };
        let ends = consumer.context().ends.lock();
        let mut lag: Vec<_> = ends
            .iter()
            .map(|(partition, end)| {
                let next = self.committed.get(partition).copied().unwrap_or(end.committed).max(0);
                (*partition, u64::try_from(end.end - next).unwrap_or(0))
            })
            .collect();
        lag.sort_unstable();
        lag
    }

    fn retention(&self) -> Option<Duration> {
        self.topic.retention()
    }

    fn close(self: Box<Self>) {
        // Dropping it leaves the group.
    }
}

impl Drop for KafkaSubscription {
    /// Leaves the group. librdkafka would otherwise wait forever for a pending
    /// rebalance to be handled.
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        consumer.context().is_closing.store(true, Ordering::Release);
        let unreleased = self.unreleased.take();
        let (done, closed) = mpsc::channel();
        // Leaving the group can hang if the brokers do.
        std::thread::spawn(move || {
            // Errors do not matter, because this member leaves the group anyway.
            for rebalance in consumer.context().rebalances.lock().drain(..) {
                let (Rebalance::Assign(list) | Rebalance::Revoke { list, .. }) = rebalance;
                let _ = unassign(&consumer, &list);
            }
            if let Some(list) = unreleased {
                let _ = unassign(&consumer, &list);
            }
            drop(consumer);
            let _ = done.send(());
        });
        if closed.recv_timeout(CLOSE_TIMEOUT).is_err() {
            tracing::warn!(
                "the consumer group did not respond; its partitions move once the session expires"
            );
        }
    }
}
