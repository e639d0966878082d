//! A member of the consumer group.
//!
//! librdkafka reports a rebalance in a callback and continues once partitions
//! are assigned or unassigned. That happens outside the callback (ADR 0019): the
//! worker receives a [`Signal`], settles and commits its records, and then
//! releases the partitions. `context` contains the callback, `rebalance` what
//! follows.

mod context;
mod gaps;
mod lag;
mod rebalance;
mod start;
mod state;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use eyego_log_core::Timestamp;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use self::context::{Context, Rebalance, unassign};
use self::gaps::{Gap, Gaps};
use self::start::REQUEST_TIMEOUT;
pub(super) use self::state::ConsumerState;
use super::topic::{Topic, group};
use super::{ClientKind, KafkaOptions, properties, reports};
use crate::domain::position::{Offset, Partition};
use crate::domain::subscription::{Delivered, QueueError, RecordSink, Signal, Subscription};

/// Time without heartbeats after which a member's partitions move to others.
/// Records wait this long after a worker was killed; Kafka's default is 45 s.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of records per poll.
const RECORDS_PER_POLL: usize = 500;

/// Maximum time to wait for the group when leaving it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval at which a commit of the first offsets is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

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
        // Notices new partitions.
        .set("topic.metadata.refresh.interval.ms", "10000");
    options.finish(config, ClientKind::Consumer)
}

/// A member of the group. Its consumer is created once the topic is confirmed,
/// because subscribing to an absent topic could create it.
pub(super) struct KafkaSubscription {
    options: Arc<KafkaOptions>,
    topic: Arc<Topic>,
    state: Arc<ConsumerState>,
    consumer: Option<BaseConsumer<Context>>,
    /// The topic's incarnation that the consumer was created for.
    incarnation: u64,
    topic_id: Option<String>,
    /// Since when a rebalance waits for a check of the topic.
    rebalance_since: Option<Instant>,
    /// Partitions that were revoked and are not released yet.
    unreleased: Option<TopicPartitionList>,
    /// Partitions that this member owns.
    owned: HashSet<Partition>,
    /// Those of them whose first offset was unknown when they were assigned.
    unknown_starts: Vec<Partition>,
    /// Offsets that this member committed. A commit never moves back.
    committed: HashMap<Partition, Offset>,
    /// First offsets that are not committed yet, and when that was tried last.
    uncommitted_starts: Vec<(Partition, Offset)>,
    tried_at: Instant,
    gaps: Gaps,
    /// Signals for the next polls.
    pending: VecDeque<Signal>,
    is_paused: bool,
}

impl KafkaSubscription {
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        topic: Arc<Topic>,
        state: Arc<ConsumerState>,
    ) -> Self {
        state.is_outside("joining the consumer group");
        topic.watch_group();
        Self {
            options,
            topic,
            state,
            consumer: None,
            incarnation: 0,
            topic_id: None,
            rebalance_since: None,
            unreleased: None,
            owned: HashSet::new(),
            unknown_starts: Vec::new(),
            committed: HashMap::new(),
            uncommitted_starts: Vec::new(),
            tried_at: Instant::now(),
            gaps: Gaps::default(),
            pending: VecDeque::new(),
            is_paused: false,
        }
    }

    fn connect(&mut self, timeout: Duration) -> Result<(), QueueError> {
        if !self.topic.is_confirmed() {
            // Health and the log already contain the reason.
            std::thread::sleep(timeout);
            return Ok(());
        }
        self.incarnation = self.topic.incarnation();
        self.topic_id = self.topic.topic_id();
        let failed = |error| QueueError::because("cannot join the consumer group", error);
        let consumer: BaseConsumer<Context> = config(&self.options)
            .create_with_context(Context::new(Arc::clone(&self.options)))
            .map_err(|error| properties::creation_error(&self.options, &error))?;
        consumer.subscribe(&[&self.options.topic]).map_err(failed)?;
        self.consumer = Some(consumer);
        Ok(())
    }

    /// Gives up everything that belongs to a topic that was deleted: offsets of
    /// its successor of the same name mean something else. Records that were
    /// delivered can still be stored.
    fn leave_deleted_topic(&mut self) -> Signal {
        self.state.is_outside("the topic was deleted and created again: joining the group again");
        for (partition, next) in self.gaps.reached() {
            let lost = self.topic.lost_with_the_deleted(partition, next);
            if lost > 0 {
                self.pending.push_back(Signal::Expired(partition, lost));
            }
        }
        let owned = self.owned.iter().copied().collect();
        self.leave();
        Signal::Revoked(owned, SESSION_TIMEOUT / 2)
    }

    fn record_error(&self, consumer: &BaseConsumer<Context>, error: &KafkaError) -> QueueError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InconsistentGroupProtocol) => {
                let group = &self.options.group;
                let reason = format!(
                    "members of the consumer group {group} use another assignment strategy \
                     (perhaps workers of the legacy service): joining when they have left"
                );
                self.state.is_outside(&reason);
                return QueueError::new(reason);
            }
            // The topic's monitor reports whether the brokers are reachable.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => {}
            _ => {
                let description = reports::describe_access(&self.options, error, "read");
                let mut reason = format!("consumer group: {description}");
                if let Some(last) = consumer.context().reports.last_error() {
                    reason = format!("{reason}: {last}");
                }
                self.state.fail(reason, reports::is_denied(error), Instant::now());
            }
        }
        QueueError::new(format!("Kafka: {}", reports::describe(error)))
    }

    /// Leaves the group. librdkafka would otherwise wait forever for a pending
    /// rebalance to be handled.
    fn leave(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        self.owned.clear();
        self.committed.clear();
        self.unknown_starts.clear();
        self.uncommitted_starts.clear();
        self.rebalance_since = None;
        self.gaps = Gaps::default();
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
        if let Some(signal) = self.pending.pop_front() {
            return Ok(signal);
        }
        if self.consumer.is_some() && self.topic.incarnation() != self.incarnation {
            return Ok(self.leave_deleted_topic());
        }
        if self.consumer.is_none() {
            self.connect(timeout)?;
        }
        if !self.unknown_starts.is_empty() {
            self.find_starts();
        }
        if !self.uncommitted_starts.is_empty() && self.tried_at.elapsed() >= RETRY_INTERVAL {
            self.commit_starts();
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
                    outcome = Err(self.record_error(consumer, &error));
                    break;
                }
                None => break,
            }
        }
        if delivered > 0 {
            self.state.succeed();
        }
        if matches!(outcome, Ok(Signal::Expired(..))) {
            return outcome;
        }
        let rebalance = self.next_rebalance();
        let has_waited = delivered == 0 && !timeout.is_zero();
        match rebalance {
            Some(rebalance) => self.handle_rebalance(rebalance),
            None => {
                // librdkafka holds no record that was deleted since.
                if has_waited && !self.is_paused && outcome.is_ok() {
                    self.count_deleted();
                }
                outcome
            }
        }
    }

    fn commit(&mut self, next_offsets: &[(Partition, Offset)]) -> Result<(), QueueError> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        if self.topic.incarnation() != self.incarnation {
            return Err(QueueError::new("cannot commit: the topic was created again"));
        }
        // Offsets of a deleted topic must not count for its successor.
        let metadata = group::metadata(self.topic_id.as_deref());
        let mut list = TopicPartitionList::new();
        for (partition, next_offset) in next_offsets {
            if self.committed.get(partition).is_some_and(|committed| next_offset <= committed) {
                continue;
            }
            let mut elem = list.add_partition(&self.options.topic, *partition);
            elem.set_metadata(&metadata);
            elem.set_offset(KafkaOffset::Offset(*next_offset))
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
        if self.topic.incarnation() != self.incarnation {
            return Vec::new();
        }
        lag::lag(&self.topic.offsets(), &self.committed, &self.owned)
    }

    fn retention(&self) -> Option<Duration> {
        self.topic.retention()
    }

    fn close(self: Box<Self>) {
        // Dropping it leaves the group.
    }
}

impl Drop for KafkaSubscription {
    fn drop(&mut self) {
        self.leave();
    }
}
