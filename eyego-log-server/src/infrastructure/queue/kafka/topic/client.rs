//! Requests about the topic: its partitions, its id, its offsets, and the
//! group's offsets. All of them block.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::group;
use crate::domain::position::{Offset, Partition};
use crate::domain::subscription::QueueError;
use crate::infrastructure::queue::kafka::reports::{Reports, describe_access};
use crate::infrastructure::queue::kafka::{ClientKind, KafkaOptions, properties};

/// Timeout of a request. Readiness must notice within 10 s that three of them
/// fail.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(2500);

/// Time to read librdkafka's own log after a request.
const LOG_TIME: Duration = Duration::from_millis(20);

/// librdkafka's limit for idempotent producers.
const MAX_REQUESTS_IN_FLIGHT: usize = 5;

/// A partition, as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionInfo {
    pub(super) id: Partition,
    /// Id of the broker that leads it, if one does.
    pub(super) leader: Option<i32>,
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
}

/// The topic, as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Changes when the topic is deleted and created again. `None` if the brokers
    /// are older than 2.8.
    pub(super) topic_id: Option<String>,
    pub(super) partitions: Vec<PartitionInfo>,
}

impl Found {
    fn ids(&self, is_affected: impl Fn(&PartitionInfo) -> bool) -> Option<Vec<Partition>> {
        let affected = self.partitions.iter().filter(|info| is_affected(info));
        let ids: Vec<_> = affected.map(|info| info.id).collect();
        (!ids.is_empty()).then_some(ids)
    }

    /// Returns how many requests a producer may have in flight per broker: fewer
    /// than the partitions that each broker leads. librdkafka sends one request per
    /// partition at a time, and its thread does not sleep while records wait for the
    /// request of their partition, unless the limit of the broker is reached, too
    /// (ADR 0042).
    pub(super) fn requests_in_flight(&self) -> usize {
        let mut led: HashMap<i32, usize> = HashMap::new();
        for leader in self.partitions.iter().filter_map(|info| info.leader) {
            *led.entry(leader).or_default() += 1;
        }
        let fewest = led.into_values().min().unwrap_or(1);
        (fewest - 1).clamp(1, MAX_REQUESTS_IN_FLIGHT)
    }

    /// Returns a reason if partitions have no leader.
    pub(super) fn leaderless(&self, topic: &str) -> Option<String> {
        let ids = self.ids(|info| info.leader.is_none())?;
        Some(format!("topic {topic}: partitions {ids:?} have no leader (LEADER_NOT_AVAILABLE)"))
    }

    /// Returns a reason if partitions have too few in-sync replicas.
    pub(super) fn under_replicated(&self, topic: &str, min: Option<usize>) -> Option<String> {
        let min = min?;
        let ids = self.ids(|info| info.in_sync < min)?;
        let in_sync = self.partitions.iter().map(|info| info.in_sync).min().unwrap_or(0);
        Some(format!(
            "topic {topic}: partitions {ids:?} have too few in-sync replicas \
             (NOT_ENOUGH_REPLICAS): {in_sync}, and min.insync.replicas is {min}"
        ))
    }
}

/// Offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::infrastructure::queue::kafka) struct PartitionOffsets {
    /// Offset of the first record.
    pub(in crate::infrastructure::queue::kafka) start: Offset,
    /// One past the offset of the last record.
    pub(in crate::infrastructure::queue::kafka) end: Offset,
    /// Offset that the group committed.
    pub(in crate::infrastructure::queue::kafka) committed: Option<Offset>,
    /// Whether no member of the group is known to own it.
    pub(in crate::infrastructure::queue::kafka) is_unowned: bool,
}

/// What the leaders and the group's coordinator returned.
pub(super) struct Positions {
    /// `None` if the coordinator did not respond.
    pub(super) offsets: Option<HashMap<Partition, PartitionOffsets>>,
    /// Why the coordinator did not respond.
    pub(super) group_error: Option<String>,
}

/// The group's committed offsets, and the partitions that its members own, if
/// known.
type GroupOffsets = (HashMap<Partition, Offset>, Option<HashSet<Partition>>);

/// A client for requests about the topic.
pub(super) struct TopicClient {
    options: Arc<KafkaOptions>,
    consumer: BaseConsumer<Context>,
    /// Whether it may ask about the consumer group.
    pub(super) has_group: bool,
}

impl TopicClient {
    pub(super) fn new(options: &Arc<KafkaOptions>, has_group: bool) -> Result<Self, QueueError> {
        let mut config = options.client("eyego-topic");
        // A metadata request of a producer could create the topic.
        config.set("allow.auto.create.topics", "false");
        if has_group {
            config.set("group.id", &options.group).set("enable.auto.commit", "false");
        }
        let mut config = options.finish(config, ClientKind::Admin);
        // The topic's id is known from librdkafka's log only (ADR 0021).
        let debug = match config.get("debug") {
            Some(debug) => format!("{debug},topic"),
            None => "topic".to_owned(),
        };
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        let context = Context {
            reports: Reports::new(Arc::clone(options), "topic"),
            topic: options.topic.clone(),
            topic_id: Mutex::default(),
        };
        let consumer = config
            .create_with_context(context)
            .map_err(|error| properties::creation_error(options, &error))?;
        Ok(Self { options: Arc::clone(options), consumer, has_group })
    }

    /// Returns the topic, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns the reason if the brokers do not respond.
    pub(super) fn find(&self) -> Result<Option<Found>, String> {
        let name = &self.options.topic;
        let result = self.consumer.fetch_metadata(Some(name), REQUEST_TIMEOUT);
        self.read_log();
        let metadata = result.map_err(|error| self.reason(&error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        match topic.error() {
            None => {}
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
            Some(error) => {
                let error = KafkaError::MetadataFetch(error.into());
                let description = describe_access(&self.options, &error, "describe");
                return Err(format!("topic {name}: {description}"));
            }
        }
        if topic.partitions().is_empty() {
            return Ok(None);
        }
        let partitions = topic.partitions().iter().map(|partition| PartitionInfo {
            id: partition.id(),
            leader: Some(partition.leader()).filter(|leader| *leader >= 0),
            replicas: partition.replicas().len(),
            in_sync: partition.isr().len(),
        });
        let mut partitions: Vec<_> = partitions.collect();
        partitions.sort_unstable_by_key(|partition| partition.id);
        let topic_id = self.consumer.context().topic_id.lock().clone();
        Ok(Some(Found { topic_id, partitions }))
    }

    /// Asks the leader of each partition for its offsets, and the group for its
    /// offsets.
    ///
    /// # Errors
    /// Returns the reason if a leader does not respond.
    pub(super) fn positions(&self, found: &Found) -> Result<Positions, String> {
        let with_leader = found.partitions.iter().filter(|info| info.leader.is_some());
        let ids: Vec<_> = with_leader.map(|info| info.id).collect();
        if ids.is_empty() {
            return Ok(Positions { offsets: None, group_error: None });
        }
        let ends = self.ends(&ids);
        let group = ends.is_ok().then(|| self.group_offsets(&ids, found.topic_id.as_deref()));
        self.read_log();
        let ends = match ends {
            Ok(ends) => ends,
            // A new leader responds so until enough replicas have caught up.
            Err(error)
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetNotAvailable) =>
            {
                return Ok(Positions { offsets: None, group_error: None });
            }
            Err(error) => return Err(self.reason(&error)),
        };
        let (committed, owned) = match group {
            Some(Ok(group)) => group,
            Some(Err(error)) => {
                return Ok(Positions { offsets: None, group_error: Some(self.reason(&error)) });
            }
            None => (HashMap::new(), None),
        };
        self.consumer.context().reports.clear();
        let offsets = ends.into_iter().map(|(id, (start, end))| {
            let is_unowned = owned.as_ref().is_some_and(|owned| !owned.contains(&id));
            let committed = committed.get(&id).copied();
            (id, PartitionOffsets { start, end, committed, is_unowned })
        });
        Ok(Positions { offsets: Some(offsets.collect()), group_error: None })
    }

    /// Returns the start and the end of each partition.
    fn ends(&self, ids: &[Partition]) -> KafkaResult<HashMap<Partition, (Offset, Offset)>> {
        // The request for a time accepts these two offsets in the place of a time.
        let at = |offset: KafkaOffset| {
            let list = self.list(ids, offset)?;
            offsets_in(&self.consumer.offsets_for_times(list, REQUEST_TIMEOUT)?)
        };
        let starts = at(KafkaOffset::Beginning)?;
        let ends = at(KafkaOffset::End)?.into_iter();
        Ok(ends.filter_map(|(id, end)| Some((id, (*starts.get(&id)?, end)))).collect())
    }

    fn group_offsets(
        &self,
        ids: &[Partition],
        topic_id: Option<&str>,
    ) -> KafkaResult<GroupOffsets> {
        if !self.has_group {
            return Ok((HashMap::new(), None));
        }
        let list = self.list(ids, KafkaOffset::Invalid)?;
        let list = self.consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
        let groups = self.consumer.fetch_group_list(Some(&self.options.group), REQUEST_TIMEOUT)?;
        Ok((group::committed(&list, topic_id), group::owned(&groups, &self.options.topic)))
    }

    /// Adds to a failure which broker cannot be reached, if that is so.
    pub(super) fn explain(&self, failure: &str) -> String {
        // Each broker has to respond to this request; its result does not matter.
        let _ = self.consumer.fetch_group_list(None, REQUEST_TIMEOUT);
        self.read_log();
        match self.consumer.context().reports.last_error() {
            Some(reason) => format!("{failure}: {reason}"),
            None => failure.to_owned(),
        }
    }

    fn list(&self, ids: &[Partition], offset: KafkaOffset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(ids.len());
        for id in ids {
            list.add_partition_offset(&self.options.topic, *id, offset)?;
        }
        Ok(list)
    }

    /// Serves librdkafka's callbacks, which would otherwise pile up in memory.
    fn read_log(&self) {
        let end = Instant::now() + LOG_TIME;
        while Instant::now() < end {
            // An error has reached the context already.
            let _ = self.consumer.poll(LOG_TIME / 4);
        }
    }

    fn reason(&self, error: &KafkaError) -> String {
        let brokers = &self.options.brokers;
        let description = describe_access(&self.options, error, "describe");
        match self.consumer.context().reports.last_error() {
            Some(reason) => format!("Kafka at {brokers}: {description}: {reason}"),
            None => format!("Kafka at {brokers}: {description}"),
        }
    }
}

/// Returns the offset of each partition of the list.
fn offsets_in(list: &TopicPartitionList) -> KafkaResult<HashMap<Partition, Offset>> {
    let mut offsets = HashMap::new();
    for elem in list.elements() {
        elem.error()?;
        if let KafkaOffset::Offset(offset) = elem.offset() {
            offsets.insert(elem.partition(), offset);
        }
    }
    Ok(offsets)
}

/// Receives librdkafka's callbacks.
struct Context {
    reports: Reports,
    topic: String,
    topic_id: Mutex<Option<String>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some(id) = topic_id_in(line, &self.topic) {
            *self.topic_id.lock() = Some(id.to_owned());
        }
        self.reports.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(&error, reason);
    }
}

impl ConsumerContext for Context {}

/// Returns the id that librdkafka found the topic to have.
fn topic_id_in<'a>(line: &'a str, topic: &str) -> Option<&'a str> {
    /// The id of a topic on a broker without ids.
    const ZERO: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    let (before, ids) = line.split_once(" changed id from ")?;
    before.ends_with(&format!("Topic {topic}")).then_some(())?;
    let (_, id) = ids.split_once(" to ")?;
    let id = id.trim();
    (!id.is_empty() && id != ZERO).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_requests_are_in_flight_than_partitions_that_a_broker_leads() {
        let limit = |leaders: &[i32]| {
            let partitions = (0..).zip(leaders).map(|(id, leader)| PartitionInfo {
                id,
                leader: Some(*leader).filter(|leader| *leader >= 0),
                replicas: 1,
                in_sync: 1,
            });
            Found { topic_id: None, partitions: partitions.collect() }.requests_in_flight()
        };
        for (leaders, expected) in [
            (&[1, 1, 1][..], 2),
            (&[1, 1, 2, 2, 2, -1], 1),
            (&[1, 2, 3], 1),
            (&[1; 30], 5),
            (&[-1], 1),
            (&[], 1),
        ] {
            assert_eq!(limit(leaders), expected, "{leaders:?}");
        }
    }

    #[test]
    fn topic_id_is_read_from_a_line_about_this_topic() {
        let line = "[thrd:main]: Topic logs changed id from AAAAAAAAAAAAAAAAAAAAAA to Zm9vYmFy";
        assert_eq!(topic_id_in(line, "logs"), Some("Zm9vYmFy"));
        assert_eq!(topic_id_in(line, "other"), None);
        let line = "[thrd:main]: Topic logs [0] Leader 1 Epoch 0";
        assert_eq!(topic_id_in(line, "logs"), None);
        let line = "Topic logs changed id from x to AAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(topic_id_in(line, "logs"), None);
    }
}
