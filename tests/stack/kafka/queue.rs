//! The server's queue on a topic of a test or a benchmark.

use eyego_log_server::infrastructure::queue::kafka::KafkaOptions;

/// Returns the options of a queue whose topic has six partitions if the queue has to create it.
#[must_use]
pub fn queue_options(brokers: &str, topic: &str, group: &str) -> KafkaOptions {
    KafkaOptions {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        group: group.to_owned(),
        partitions: 6,
        replication: None,
        properties: Vec::new(),
        max_queued_bytes: 128 << 20,
        max_prefetch_bytes: 32 << 20,
        max_record_bytes: 256 << 10,
        appends: true,
    }
}
