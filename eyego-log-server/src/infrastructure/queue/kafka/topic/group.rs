//! What the consumer group says about the topic: its offsets, and the partitions
//! that its members own. This module does no I/O.

use std::collections::{HashMap, HashSet};

use rdkafka::groups::GroupList;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::domain::position::{Offset, Partition};

/// Start of the metadata of an offset that this server committed. The topic's id
/// follows: an offset of a deleted topic does not apply to its successor.
const METADATA: &str = "topic-id=";

/// Returns the metadata to commit with an offset.
pub(in crate::infrastructure::queue::kafka) fn metadata(topic_id: Option<&str>) -> String {
    topic_id.map(|id| format!("{METADATA}{id}")).unwrap_or_default()
}

/// Returns the offsets, by partition, that the group committed for the topic with
/// this id. Offsets that were committed for a deleted topic of the same name are
/// left out.
pub(in crate::infrastructure::queue::kafka) fn committed(
    list: &TopicPartitionList,
    topic_id: Option<&str>,
) -> HashMap<Partition, Offset> {
    let elements = list.elements();
    let valid = elements.iter().filter_map(|elem| match elem.offset() {
        KafkaOffset::Offset(offset) if is_of(elem.metadata(), topic_id) => {
            Some((elem.partition(), offset))
        }
        _ => None,
    });
    valid.collect()
}

/// Returns `true` unless an offset with this metadata belongs to another topic of
/// the same name.
fn is_of(metadata: &str, topic_id: Option<&str>) -> bool {
    match (metadata.strip_prefix(METADATA), topic_id) {
        (Some(committed), Some(current)) => committed == current,
        // The legacy service, other tools and brokers without ids commit no id.
        _ => true,
    }
}

/// Returns the partitions of the topic that a member owns. `None` if the group is
/// rebalancing, so that it is unknown.
pub(super) fn owned(groups: &GroupList, topic: &str) -> Option<HashSet<Partition>> {
    let Some(group) = groups.groups().first() else { return Some(HashSet::new()) };
    match group.state() {
        "Stable" => {}
        "Empty" | "Dead" => return Some(HashSet::new()),
        _ => return None,
    }
    let mut owned = HashSet::new();
    for member in group.members() {
        owned.extend(assigned(member.assignment().unwrap_or_default(), topic)?);
    }
    Some(owned)
}

/// Reads the partitions of a topic from a member's assignment in the format of
/// the consumer protocol: a version, and for each topic its name and partitions.
fn assigned(mut bytes: &[u8], topic: &str) -> Option<Vec<Partition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut partitions = Vec::new();
    let _version: &[u8; 2] = take(&mut bytes)?;
    let topics = i32::from_be_bytes(*take(&mut bytes)?);
    for _ in 0..topics {
        let len = usize::try_from(i16::from_be_bytes(*take(&mut bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        for _ in 0..i32::from_be_bytes(*take(&mut bytes)?) {
            let partition = i32::from_be_bytes(*take(&mut bytes)?);
            if name == topic.as_bytes() {
                partitions.push(partition);
            }
        }
    }
    Some(partitions)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(topics: &[(&str, &[Partition])]) -> Vec<u8> {
        let length = |len: usize| i32::try_from(len).unwrap().to_be_bytes();
        let mut bytes = vec![0, 1];
        bytes.extend(length(topics.len()));
        for (name, partitions) in topics {
            bytes.extend(i16::try_from(name.len()).unwrap().to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(length(partitions.len()));
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend(length(0));
        bytes
    }

    #[test]
    fn assignment_is_read_for_one_topic_and_never_past_its_end() {
        let bytes = encode(&[("other", &[7]), ("logs", &[0, 3])]);
        assert_eq!(assigned(&bytes, "logs"), Some(vec![0, 3]));
        assert_eq!(assigned(&bytes, "unknown"), Some(Vec::new()));
        assert_eq!(assigned(&[], "logs"), Some(Vec::new()));
        // The last four bytes are user data.
        for len in 1..bytes.len() - 4 {
            assert_eq!(assigned(&bytes[..len], "logs"), None, "{len}");
        }
    }

    #[test]
    fn offsets_of_a_deleted_topic_are_left_out() {
        let mut list = TopicPartitionList::new();
        for (partition, metadata) in [(0, "topic-id=old"), (1, "topic-id=new"), (2, "")] {
            let mut elem = list.add_partition("t", partition);
            elem.set_offset(KafkaOffset::Offset(5)).unwrap();
            elem.set_metadata(metadata);
        }
        list.add_partition("t", 3);
        assert_eq!(committed(&list, Some("new")), HashMap::from([(1, 5), (2, 5)]));
        assert_eq!(committed(&list, None), HashMap::from([(0, 5), (1, 5), (2, 5)]));
        assert_eq!(metadata(Some("new")), "topic-id=new");
        assert_eq!(metadata(None), "");
    }
}
