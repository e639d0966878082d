//! librdkafka's callbacks: rebalances, queued until the worker handles them, and
//! the end offset of each partition.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::domain::position::{Offset, Partition};

pub(super) fn unassign(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.unassign(),
    }
}

pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke { list: TopicPartitionList, is_lost: bool },
}

/// Offsets of a partition, from librdkafka's statistics.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) end: Offset,
    pub(super) committed: Offset,
}

/// Receives the callbacks.
#[derive(Default)]
pub(super) struct Context {
    pub(super) rebalances: Mutex<VecDeque<Rebalance>>,
    pub(super) ends: Mutex<HashMap<Partition, End>>,
    /// The worker has stopped: rebalances are handled in the callback.
    pub(super) is_closing: AtomicBool,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka consumer");
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends.lock();
        ends.clear();
        for partition in statistics.topics.values().flat_map(|topic| topic.partitions.values()) {
            if partition.desired && partition.partition >= 0 && partition.hi_offset >= 0 {
                let committed = partition.committed_offset.max(partition.lo_offset).max(0);
                let end = End { end: partition.hi_offset, committed };
                ends.insert(partition.partition, end);
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let is_assignment = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing.load(Ordering::Acquire) {
            if let Err(error) = unassign(consumer, list) {
                tracing::debug!(%error, "cannot release partitions while leaving the group");
            }
            return;
        }
        let list = list.clone();
        let rebalance = if is_assignment {
            Rebalance::Assign(list)
        } else {
            Rebalance::Revoke { list, is_lost: consumer.assignment_lost() }
        };
        self.rebalances.lock().push_back(rebalance);
    }
}
