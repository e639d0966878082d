//! The partitions that this worker holds, and what of them is under way.
//!
//! Each partition has a generation that changes when the partition goes: what
//! a bulk of an earlier one reports moves nothing any more. Partitions that
//! stay through a rebalance keep theirs, and their bulks go on counting.

use std::collections::HashMap;
use std::time::Duration;

use eyego_log_core::Timestamp;

use super::batcher::Bulk;
use super::watermark::{Ticket, Watermark};
use crate::domain::queue::{Offset, Partition};
use crate::domain::subscription::Delivered;

/// The partitions held.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    held: HashMap<Partition, Held>,
    next_generation: u64,
    bulks_in_flight: usize,
}

#[derive(Debug)]
struct Held {
    generation: u64,
    watermark: Watermark,
    /// The last record's offset, and when the queue took it.
    last_delivered: Option<(Offset, Timestamp)>,
    committed: Option<Offset>,
    records_in_flight: u64,
}

/// The parts of one bulk, by partition.
#[derive(Debug)]
pub(super) struct Settled(Vec<Slice>);

#[derive(Debug)]
struct Slice {
    partition: Partition,
    generation: u64,
    ticket: Ticket,
    records: u64,
}

impl Assignment {
    /// Holds these partitions from now on; those held already stay as they are.
    pub(super) fn assign(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.hold(*partition);
        }
    }

    fn hold(&mut self, partition: Partition) -> &mut Held {
        self.held.entry(partition).or_insert_with(|| {
            self.next_generation += 1;
            Held {
                generation: self.next_generation,
                watermark: Watermark::default(),
                last_delivered: None,
                committed: None,
                records_in_flight: 0,
            }
        })
    }

    /// Notes a delivered record. Answers whether the partition begins anew:
    /// its offsets went back, because the topic was created again.
    pub(super) fn deliver(&mut self, record: &Delivered<'_>) -> bool {
        let Delivered { partition, offset, queued_at, .. } = *record;
        let held = self.hold(partition);
        let begins_anew = held.last_delivered.is_some_and(|(last, _)| offset <= last);
        if begins_anew {
            self.held.remove(&partition);
        }
        self.hold(partition).last_delivered = Some((offset, queued_at));
        begins_anew
    }

    /// How long it takes until the queue deletes the first record of each
    /// partition that was not delivered: at least so long, since it is younger
    /// than the last one that was.
    pub(super) fn retention_left(
        &self,
        retention: Duration,
        lag: &[(Partition, u64)],
        now: Timestamp,
    ) -> Vec<(Partition, Duration)> {
        let of_partition = |(partition, lag): &(Partition, u64)| {
            let (_, queued_at) = self.held.get(partition)?.last_delivered?;
            let age = now.duration_since(queued_at).unwrap_or_default();
            let age = if *lag == 0 { Duration::ZERO } else { age };
            Some((*partition, retention.saturating_sub(age)))
        };
        lag.iter().filter_map(of_partition).collect()
    }

    /// Notes a bulk that is sent off.
    pub(super) fn dispatch(&mut self, bulk: &Bulk) -> Settled {
        self.bulks_in_flight += 1;
        let mut slices = Vec::new();
        for (partition, last_offset, records) in bulk.partitions() {
            let held = self.hold(partition);
            held.records_in_flight += records;
            let ticket = held.watermark.deliver(last_offset);
            slices.push(Slice { partition, generation: held.generation, ticket, records });
        }
        Settled(slices)
    }

    /// Notes that a bulk is settled.
    pub(super) fn complete(&mut self, settled: Settled) {
        self.bulks_in_flight = self.bulks_in_flight.saturating_sub(1);
        for slice in settled.0 {
            let held = self.held.get_mut(&slice.partition);
            if let Some(held) = held.filter(|held| held.generation == slice.generation) {
                held.watermark.complete(slice.ticket);
                held.records_in_flight -= slice.records;
            }
        }
    }

    /// Lets these partitions go; answers how many of their records were under
    /// way.
    pub(super) fn remove(&mut self, partitions: &[Partition]) -> u64 {
        let removed = partitions.iter().filter_map(|partition| self.held.remove(partition));
        removed.map(|held| held.records_in_flight).sum()
    }

    /// Whether nothing of these partitions is under way.
    pub(super) fn is_settled(&self, partitions: &[Partition]) -> bool {
        let held = partitions.iter().filter_map(|partition| self.held.get(partition));
        held.map(|held| &held.watermark).all(Watermark::is_settled)
    }

    /// What may be committed and is not yet.
    pub(super) fn uncommitted(&self) -> Vec<(Partition, Offset)> {
        let held = self.held.iter();
        held.filter_map(|(partition, held)| {
            let next_offset = held.watermark.next_offset()?;
            (held.committed != Some(next_offset)).then_some((*partition, next_offset))
        })
        .collect()
    }

    /// Notes what is committed.
    pub(super) fn committed(&mut self, next_offsets: &[(Partition, Offset)]) {
        for (partition, next_offset) in next_offsets {
            if let Some(held) = self.held.get_mut(partition) {
                held.committed = Some(*next_offset);
            }
        }
    }

    /// The partitions held.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.held.keys().copied().collect()
    }

    /// Bulks that are under way, of whatever partitions.
    pub(super) fn bulks_in_flight(&self) -> usize {
        self.bulks_in_flight
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::batcher::{Batcher, BulkLimits};
    use super::*;

    fn record(partition: Partition, offset: Offset) -> Delivered<'static> {
        Delivered { partition, offset, queued_at: Timestamp::MIN, value: Some(b"x") }
    }

    fn bulk(assignment: &mut Assignment, records: &[(Partition, Offset)]) -> Settled {
        let limits = BulkLimits {
            records: 100,
            bytes: 100,
            linger_busy: Duration::ZERO,
            linger_idle: Duration::ZERO,
            few: 0,
        };
        let mut batcher = Batcher::new(limits, Instant::now());
        for (partition, offset) in records {
            let record = record(*partition, *offset);
            assignment.deliver(&record);
            batcher.push(&record, Instant::now());
        }
        assignment.dispatch(&batcher.take().unwrap())
    }

    #[test]
    fn a_bulk_of_an_earlier_generation_moves_nothing() {
        let mut assignment = Assignment::default();
        assignment.assign(&[0, 1]);
        let stale = bulk(&mut assignment, &[(0, 5), (1, 5)]);
        assert_eq!(assignment.remove(&[0]), 1);
        assignment.assign(&[0]);
        let fresh = bulk(&mut assignment, &[(0, 5)]);
        assignment.complete(stale);
        assert_eq!(assignment.uncommitted(), [(1, 6)], "partition 1 was retained");
        assignment.complete(fresh);
        let mut uncommitted = assignment.uncommitted();
        uncommitted.sort_unstable();
        assert_eq!(uncommitted, [(0, 6), (1, 6)]);
        assert_eq!(assignment.bulks_in_flight(), 0);
    }

    #[test]
    fn a_recreated_topic_begins_anew() {
        let mut assignment = Assignment::default();
        let old = bulk(&mut assignment, &[(0, 100)]);
        assert!(assignment.deliver(&record(0, 0)));
        let new = bulk(&mut assignment, &[(0, 1)]);
        assignment.complete(old);
        assert_eq!(assignment.uncommitted(), []);
        assignment.complete(new);
        assert_eq!(assignment.uncommitted(), [(0, 2)]);
    }

    #[test]
    fn what_is_committed_is_not_committed_again() {
        let mut assignment = Assignment::default();
        let settled = bulk(&mut assignment, &[(0, 1)]);
        assignment.complete(settled);
        assignment.committed(&[(0, 2)]);
        assert_eq!(assignment.uncommitted(), []);
    }

    #[test]
    fn retention_is_left_as_if_all_were_as_old_as_the_last_delivered() {
        const RETENTION: Duration = Duration::from_secs(100);
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let mut assignment = Assignment::default();
        for partition in [0, 1, 2] {
            assignment.deliver(&Delivered { queued_at: at(1_000), ..record(partition, 5) });
        }
        let left = assignment.retention_left(RETENTION, &[(0, 3), (1, 0), (9, 7)], at(41_000));
        // Nothing waits in 1; of 9 nothing is known.
        assert_eq!(left, [(0, Duration::from_secs(60)), (1, RETENTION)]);
        let left = assignment.retention_left(RETENTION, &[(0, 3)], at(500_000));
        assert_eq!(left, [(0, Duration::ZERO)]);
    }
}
