//! The lag of each partition. This module does no I/O.

use std::collections::{HashMap, HashSet};

use crate::domain::position::{Offset, Partition};
use crate::infrastructure::queue::kafka::topic::PartitionOffsets;

/// Returns the number of records past the committed offset for each partition
/// that this member owns or that no member owns. `committed` are the offsets that
/// this member committed since the last observation.
pub(super) fn lag(
    observed: &HashMap<Partition, PartitionOffsets>,
    committed: &HashMap<Partition, Offset>,
    owned: &HashSet<Partition>,
) -> Vec<(Partition, u64)> {
    let reported = observed.iter().filter(|(id, offsets)| {
        // The group may have assigned it since it was observed.
        owned.contains(id) || offsets.is_unowned
    });
    let of_partition = reported.map(|(id, offsets)| {
        let committed = committed.get(id).copied().max(offsets.committed);
        let next = committed.unwrap_or(offsets.start).max(offsets.start);
        (*id, u64::try_from(offsets.end - next).unwrap_or(0))
    });
    let mut lag: Vec<_> = of_partition.collect();
    lag.sort_unstable();
    lag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_from_the_committed_offset_or_the_first_record() {
        let offsets =
            |start, end, committed| PartitionOffsets { start, end, committed, is_unowned: false };
        let observed = HashMap::from([
            (0, offsets(10, 50, Some(20))),
            (1, offsets(10, 50, None)),
            (2, offsets(10, 50, Some(5))),
            (3, offsets(10, 50, Some(20))),
            (4, PartitionOffsets { is_unowned: true, ..offsets(0, 9, None) }),
            (5, offsets(0, 9, Some(0))),
        ]);
        let committed = HashMap::from([(3, 55)]);
        let owned = HashSet::from([0, 1, 2, 3]);
        let expected = [(0, 30), (1, 40), (2, 40), (3, 0), (4, 9)];
        assert_eq!(lag(&observed, &committed, &owned), expected, "5 belongs to another member");
    }
}
