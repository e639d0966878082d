//! The partitions assigned to this worker and their bulks in flight.
//!
//! Each assigned partition has a generation. It changes when the partition is
//! revoked, so a bulk of an earlier generation does not move the watermark.
//! Partitions that stay assigned through a rebalance keep their generation.

use std::collections::HashMap;
use std::time::Duration;

use eyego_log_core::Timestamp;

use super::batcher::Bulk;
use super::watermark::{Ticket, Watermark};
use crate::domain::position::{Offset, Partition};
use crate::domain::subscription::Delivered;

/// The assigned partitions.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    partitions: HashMap<Partition, Assigned>,
    last_generation: u64,
    bulks_in_flight: usize,
}

#[derive(Debug)]
struct Assigned {
    generation: u64,
    watermark: Watermark,
    /// Offset of the last delivered record, and when the queue accepted it.
    last_delivered: Option<(Offset, Timestamp)>,
    committed: Option<Offset>,
    records_in_flight: u64,
}

/// Identifies a bulk in flight: its slice of each partition.
#[derive(Debug)]
pub(super) struct BulkTicket(Vec<Slice>);

#[derive(Debug)]
struct Slice {
    partition: Partition,
    generation: u64,
    ticket: Ticket,
    records: u64,
}

impl Assignment {
    /// Adds partitions. Those already assigned keep their state.
    pub(super) fn assign(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.assigned(*partition);
        }
    }

    fn assigned(&mut self, partition: Partition) -> &mut Assigned {
        self.partitions.entry(partition).or_insert_with(|| {
            self.last_generation += 1;
            Assigned {
                generation: self.last_generation,
                watermark: Watermark::default(),
                last_delivered: None,
                committed: None,
                records_in_flight: 0,
            }
        })
    }

    /// Notes a delivered record. Returns `true` if the offsets of its partition
    /// start again, because the topic was recreated.
    pub(super) fn deliver(&mut self, record: &Delivered<'_>) -> bool {
        let Delivered { partition, offset, queued_at, .. } = *record;
        let assigned = self.assigned(partition);
        let is_restarted = assigned.last_delivered.is_some_and(|(last, _)| offset <= last);
        if is_restarted {
            self.partitions.remove(&partition);
        }
        self.assigned(partition).last_delivered = Some((offset, queued_at));
        is_restarted
    }

    /// Returns, for each partition, a lower bound of the time until the queue
    /// deletes the first undelivered record, which is younger than the last
    /// delivered one.
    pub(super) fn retention_left(
        &self,
        retention: Duration,
        lag: &[(Partition, u64)],
        now: Timestamp,
    ) -> Vec<(Partition, Duration)> {
        let of_partition = |(partition, lag): &(Partition, u64)| {
            let (_, queued_at) = self.partitions.get(partition)?.last_delivered?;
            let age = now.duration_since(queued_at).unwrap_or_default();
            let age = if *lag == 0 { Duration::ZERO } else { age };
            Some((*partition, retention.saturating_sub(age)))
        };
        lag.iter().filter_map(of_partition).collect()
    }

    /// Notes that a bulk is in flight.
    pub(super) fn dispatch(&mut self, bulk: &Bulk) -> BulkTicket {
        self.bulks_in_flight += 1;
        let mut slices = Vec::new();
        for (partition, last_offset, records) in bulk.partitions() {
            let assigned = self.assigned(partition);
            assigned.records_in_flight += records;
            let ticket = assigned.watermark.add(last_offset);
            slices.push(Slice { partition, generation: assigned.generation, ticket, records });
        }
        BulkTicket(slices)
    }

    /// Notes that a bulk is settled.
    pub(super) fn complete(&mut self, BulkTicket(slices): BulkTicket) {
        self.bulks_in_flight = self.bulks_in_flight.saturating_sub(1);
        for slice in slices {
            let assigned = self.partitions.get_mut(&slice.partition);
            if let Some(assigned) = assigned.filter(|now| now.generation == slice.generation) {
                assigned.watermark.settle(slice.ticket);
                assigned.records_in_flight -= slice.records;
            }
        }
    }

    /// Removes partitions and returns how many of their records are in flight.
    pub(super) fn remove(&mut self, partitions: &[Partition]) -> u64 {
        let removed = partitions.iter().filter_map(|partition| self.partitions.remove(partition));
        removed.map(|assigned| assigned.records_in_flight).sum()
    }

    /// Returns `true` if none of these partitions has a bulk in flight.
    pub(super) fn is_settled(&self, partitions: &[Partition]) -> bool {
        let assigned = partitions.iter().filter_map(|partition| self.partitions.get(partition));
        assigned.map(|assigned| &assigned.watermark).all(Watermark::is_settled)
    }

    /// Returns the offsets that can be committed and are not committed yet.
    pub(super) fn uncommitted(&self) -> Vec<(Partition, Offset)> {
        let uncommitted = self.partitions.iter().filter_map(|(partition, assigned)| {
            let next_offset = assigned.watermark.next_offset()?;
            (assigned.committed != Some(next_offset)).then_some((*partition, next_offset))
        });
        uncommitted.collect()
    }

    /// Notes that these offsets are committed.
    pub(super) fn committed(&mut self, next_offsets: &[(Partition, Offset)]) {
        for (partition, next_offset) in next_offsets {
            if let Some(assigned) = self.partitions.get_mut(partition) {
                assigned.committed = Some(*next_offset);
            }
        }
    }

    /// Returns the assigned partitions.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.partitions.keys().copied().collect()
    }

    /// Returns the number of bulks in flight, including those of removed
    /// partitions.
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

    fn bulk(assignment: &mut Assignment, records: &[(Partition, Offset)]) -> BulkTicket {
        let limits = BulkLimits {
            records: 100,
            bytes: 100,
            linger_busy: Duration::ZERO,
            linger_idle: Duration::ZERO,
            small_bulk: 0,
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
    fn a_bulk_of_an_earlier_generation_does_not_move_the_watermark() {
        let mut assignment = Assignment::default();
        assignment.assign(&[0, 1]);
        let stale = bulk(&mut assignment, &[(0, 5), (1, 5)]);
        assert_eq!(assignment.remove(&[0]), 1);
        assignment.assign(&[0]);
        let fresh = bulk(&mut assignment, &[(0, 5)]);
        assignment.complete(stale);
        assert_eq!(assignment.uncommitted(), [(1, 6)], "partition 1 stayed assigned");
        assignment.complete(fresh);
        let mut uncommitted = assignment.uncommitted();
        uncommitted.sort_unstable();
        assert_eq!(uncommitted, [(0, 6), (1, 6)]);
        assert_eq!(assignment.bulks_in_flight(), 0);
    }

    #[test]
    fn a_recreated_topic_starts_a_new_generation() {
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
    fn committed_offsets_are_not_committed_again() {
        let mut assignment = Assignment::default();
        let ticket = bulk(&mut assignment, &[(0, 1)]);
        assignment.complete(ticket);
        assignment.committed(&[(0, 2)]);
        assert_eq!(assignment.uncommitted(), []);
    }

    #[test]
    fn retention_left_is_based_on_the_last_delivered_record() {
        const RETENTION: Duration = Duration::from_secs(100);
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let mut assignment = Assignment::default();
        for partition in [0, 1, 2] {
            assignment.deliver(&Delivered { queued_at: at(1_000), ..record(partition, 5) });
        }
        let left = assignment.retention_left(RETENTION, &[(0, 3), (1, 0), (9, 7)], at(41_000));
        // Partition 1 has no lag, partition 9 no delivered record.
        assert_eq!(left, [(0, Duration::from_secs(60)), (1, RETENTION)]);
        let left = assignment.retention_left(RETENTION, &[(0, 3)], at(500_000));
        assert_eq!(left, [(0, Duration::ZERO)]);
    }
}
