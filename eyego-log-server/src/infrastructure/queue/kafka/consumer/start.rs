//! Where the consumption of an assigned partition starts.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{
    Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem,
};

use super::context::Context;
use crate::domain::position::{Offset, Partition};
use crate::infrastructure::queue::kafka::topic::{PartitionOffsets, group};

/// Timeout of a request to the brokers.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the consumption of a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) partition: Partition,
    /// The first offset to consume. `None` is the first one that exists.
    pub(super) offset: Option<Offset>,
    /// Records that Kafka deleted before they were consumed.
    pub(super) expired: u64,
    /// Whether the offset has to be committed, so that records that are deleted
    /// from now on are counted, even by another member.
    pub(super) is_new: bool,
}

/// Decides where the consumption of a partition starts, from the offset that the
/// group committed and the offset of the first record that exists.
fn start(partition: Partition, committed: Option<Offset>, first: Option<Offset>) -> Start {
    match (committed, first) {
        (Some(committed), Some(first)) if committed < first => Start {
            partition,
            offset: Some(first),
            expired: u64::try_from(first - committed).unwrap_or(0),
            is_new: true,
        },
        (Some(committed), _) => {
            Start { partition, offset: Some(committed), expired: 0, is_new: false }
        }
        (None, first) => Start { partition, offset: first, expired: 0, is_new: first.is_some() },
    }
}

/// Asks the group where the consumption of these partitions starts.
///
/// # Errors
/// Returns an error if the group's coordinator does not respond. Without it,
/// librdkafka could not start either.
pub(super) fn starts(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
    topic_id: Option<&str>,
    known: &HashMap<Partition, PartitionOffsets>,
) -> KafkaResult<Vec<Start>> {
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let committed = consumer.committed_offsets(list.clone(), REQUEST_TIMEOUT)?;
    let committed = group::committed(&committed, topic_id);
    let elements = list.elements();
    let starts = elements.iter().map(|elem: &TopicPartitionListElem<'_>| {
        let id = elem.partition();
        let known = known.get(&id).map(|offsets| offsets.start);
        // The monitor has not seen a new partition yet.
        let first = known.or_else(|| {
            let offsets = consumer.fetch_watermarks(elem.topic(), id, REQUEST_TIMEOUT);
            offsets.ok().map(|(first, _)| first)
        });
        start(id, committed.get(&id).copied(), first)
    });
    Ok(starts.collect())
}

/// Returns the assignment, with the offset to start at for each partition.
pub(super) fn positions(list: &TopicPartitionList, starts: &[Start]) -> TopicPartitionList {
    let mut positioned = list.clone();
    let topics: HashMap<Partition, String> =
        list.elements().iter().map(|elem| (elem.partition(), elem.topic().to_owned())).collect();
    for Start { partition, offset, .. } in starts {
        let offset = offset.map_or(KafkaOffset::Beginning, KafkaOffset::Offset);
        if let Some(topic) = topics.get(partition) {
            // Fails only for a partition that is not in the list.
            let _ = positioned.set_partition_offset(topic, *partition, offset);
        }
    }
    positioned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumption_starts_at_the_committed_offset_or_at_the_first_record() {
        let committed = Start { partition: 1, offset: Some(7), expired: 0, is_new: false };
        assert_eq!(start(1, Some(7), Some(3)), committed);
        assert_eq!(start(1, Some(7), None), committed);
        let first = Start { partition: 1, offset: Some(3), expired: 0, is_new: true };
        assert_eq!(start(1, None, Some(3)), first);
        let unknown = Start { partition: 1, offset: None, expired: 0, is_new: false };
        assert_eq!(start(1, None, None), unknown);
    }

    #[test]
    fn records_deleted_since_the_commit_are_expired() {
        let expected = Start { partition: 0, offset: Some(25), expired: 15, is_new: true };
        assert_eq!(start(0, Some(10), Some(25)), expected);
    }
}
