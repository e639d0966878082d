//! librdkafka's callbacks: rebalances, queued until the worker handles them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::infrastructure::queue::kafka::KafkaOptions;
use crate::infrastructure::queue::kafka::reports::Reports;

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

/// Receives the callbacks.
pub(super) struct Context {
    pub(super) reports: Reports,
    pub(super) rebalances: Mutex<VecDeque<Rebalance>>,
    /// The worker has stopped: rebalances are handled in the callback.
    pub(super) is_closing: AtomicBool,
}

impl Context {
    pub(super) fn new(options: Arc<KafkaOptions>) -> Self {
        Self {
            reports: Reports::new(options, "consumer"),
            rebalances: Mutex::default(),
            is_closing: AtomicBool::new(false),
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.reports.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(&error, reason);
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
