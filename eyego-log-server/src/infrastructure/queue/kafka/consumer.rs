//! A member of the consumer group.
//!
//! librdkafka tells of a rebalance in a callback and waits for an answer. The
//! answer is not given there: the worker hears of it as a [`Signal`], finishes
//! and commits what it has, and then releases. The callback's side is in
//! `context`.

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
use super::{KafkaOptions, Side};
use crate::domain::queue::{Offset, Partition};
use crate::domain::subscription::{Delivered, QueueError, RecordSink, Signal, Subscription};

/// How long a member may be silent before its partitions move. 45 s is Kafka's
/// default; this is what a killed worker costs.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Records in one poll at most.
const CHUNK: usize = 500;

/// Whoever asks the brokers something waits for so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Leaving a group that does not answer is given up after this.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How the consumer of this process is, for readiness.
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

/// Whether librdkafka takes the properties.
pub(super) fn check(options: &KafkaOptions) -> Result<(), QueueError> {
    let checked = config(options).create_native_config();
    checked.map(drop).map_err(|error| QueueError::because("EYEGO_KAFKA_PROPERTIES", error))
}

fn config(options: &KafkaOptions) -> rdkafka::ClientConfig {
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
        // By default the broker answers as soon as there is one record: under
        // load a fetch for each few of them (measured at 10,000/s: a third of
        // the broker's CPU, a tenth of ours).
        .set("fetch.min.bytes", "100000")
        .set("fetch.wait.max.ms", "25")
        // By default a full prefetch rests for a second.
        .set("fetch.queue.backoff.ms", "20")
        .set("statistics.interval.ms", "5000");
    options.finish(config, Side::Consumer)
}

/// The group as one member sees it. The consumer is made when the topic is
/// confirmed: subscribing to a topic that is absent might create it.
pub(super) struct KafkaSubscription {
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    state: Arc<ConsumerState>,
    consumer: Option<BaseConsumer<Context>>,
    /// The partitions of a revocation that is not answered yet.
    unanswered: Option<TopicPartitionList>,
    /// What this member committed: a commit never moves back.
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
            unanswered: None,
            committed: HashMap::new(),
            gaps: Gaps::default(),
            is_paused: false,
        }
    }

    fn connect(&mut self, timeout: Duration) -> Result<(), QueueError> {
        if !self.topic.is_confirmed() {
            // Health and log say why already.
            std::thread::sleep(timeout);
            return Ok(());
        }
        let failed = |error| QueueError::because("cannot join the consumer group", error);
        let consumer: BaseConsumer<Context> =
            config(&self.options).create_with_context(Context::default()).map_err(failed)?;
        consumer.subscribe(&[&self.options.topic]).map_err(failed)?;
        self.consumer = Some(consumer);
        Ok(())
    }

    /// Answers an assignment, or hands a revocation on.
    fn rebalanced(&mut self, rebalance: Rebalance) -> Result<Signal, QueueError> {
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
                assigned.map_err(|error| QueueError::because("cannot take partitions", error))?;
                self.gaps.begin(&committed_before(consumer, &list));
                // Also when nothing is paused: librdkafka remembers of a partition that it was
                // paused when it went, and a resumption since then did not reach it.
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
                    self.gaps.end(*partition);
                }
                self.unanswered = Some(list);
                if is_lost {
                    Ok(Signal::Lost(names))
                } else {
                    Ok(Signal::Revoked(names, SESSION_TIMEOUT / 2))
                }
            }
        }
    }

    fn note_error(&self, error: &KafkaError) -> QueueError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InconsistentGroupProtocol) => {
                let group = &self.options.group;
                let reason = format!(
                    "the consumer group {group} is held by members that assign partitions in \
                     another way (a worker of the system that is being replaced, perhaps): \
                     joining when they have left"
                );
                self.state.set(Some(reason.clone()));
                return QueueError::new(reason);
            }
            // The topic's watch knows whether the brokers can be reached, and
            // notices when they can again.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => {}
            _ => self.state.set(Some(format!("the consumer group: {error}"))),
        }
        QueueError::new(format!("Kafka: {error}"))
    }
}

/// Where consumption goes on in each partition, as far as the group has said.
fn committed_before(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> Vec<(Partition, Offset)> {
    // Without an answer a loss before the first record is not noticed; the
    // records matter more.
    let committed = consumer.committed_offsets(list.clone(), ANSWER_TIMEOUT);
    let committed = committed.map(|list| {
        let offsets = list.elements().into_iter().map(|elem| (elem.partition(), elem.offset()));
        offsets.filter_map(|(at, offset)| Some((at, offset.to_raw()?))).collect()
    });
    committed.unwrap_or_default()
}

/// How many records of a gap the topic has deleted. Most gaps are none: the
/// markers of transactions, records that were compacted away.
fn expired_in(consumer: &BaseConsumer<Context>, topic: &str, gap: &Gap) -> Option<u64> {
    let watermarks = consumer.fetch_watermarks(topic, gap.partition, ANSWER_TIMEOUT);
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
        while delivered < CHUNK {
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
                        // The topic was created anew; its offsets begin again.
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
                    outcome = Err(self.note_error(&error));
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
            Some(rebalance) => self.rebalanced(rebalance),
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
        let (Some(consumer), Some(list)) = (&self.consumer, self.unanswered.take()) else { return };
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
        // As in `drop`.
    }
}

impl Drop for KafkaSubscription {
    /// Leaves the group, however this member ends: librdkafka would wait for
    /// ever for the answer to a last rebalance.
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        consumer.context().is_closing.store(true, Ordering::Release);
        let unanswered = self.unanswered.take();
        let (done, closed) = mpsc::channel();
        // Leaving the group can hang where the brokers do.
        std::thread::spawn(move || {
            // Only the group's peace of mind is at stake: we are leaving.
            for rebalance in consumer.context().rebalances.lock().drain(..) {
                let (Rebalance::Assign(list) | Rebalance::Revoke { list, .. }) = rebalance;
                let _ = unassign(&consumer, &list);
            }
            if let Some(list) = unanswered {
                let _ = unassign(&consumer, &list);
            }
            drop(consumer);
            let _ = done.send(());
        });
        if closed.recv_timeout(CLOSE_TIMEOUT).is_err() {
            tracing::warn!("the consumer group does not answer; leaving without a word");
        }
    }
}
