//! Gathers delivered records into bulks. Pure: the time is an argument.

use std::ops::Range;
use std::time::{Duration, Instant};

use eyego_log_core::Timestamp;

use crate::domain::position::{Offset, Partition};
use crate::domain::subscription::Delivered;

/// Limits of a bulk.
#[derive(Debug, Clone, Copy)]
pub(super) struct BulkLimits {
    /// Maximum number of records.
    pub(super) records: usize,
    /// Size in bytes at which a bulk is full. The last record may exceed it.
    pub(super) bytes: usize,
    /// How long the first record of a bulk waits for more under load: larger
    /// bulks cost the store less.
    pub(super) linger_busy: Duration,
    /// How long the first record waits while the bulk is [small](Self::small_bulk)
    /// and no other is in flight: waiting longer would only add latency.
    pub(super) linger_idle: Duration,
    /// Maximum number of records of a small bulk.
    pub(super) small_bulk: usize,
}

/// Records in delivery order, in one contiguous buffer.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    bytes: Vec<u8>,
    records: Vec<RecordMeta>,
}

#[derive(Debug)]
struct RecordMeta {
    partition: Partition,
    offset: Offset,
    queued_at: Timestamp,
    value: Option<Range<usize>>,
}

/// One record of a bulk.
#[derive(Debug, Clone, Copy)]
pub(super) struct BulkRecord<'a> {
    /// Partition of the record.
    pub(super) partition: Partition,
    /// Offset of the record within its partition.
    pub(super) offset: Offset,
    /// When the queue accepted the record.
    pub(super) queued_at: Timestamp,
    /// Value of the record, or `None` for a record without a value.
    pub(super) value: Option<&'a [u8]>,
}

impl Bulk {
    /// Returns the records, in delivery order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = BulkRecord<'_>> {
        self.records.iter().map(|record| BulkRecord {
            partition: record.partition,
            offset: record.offset,
            queued_at: record.queued_at,
            value: record.value.clone().map(|range| &self.bytes[range]),
        })
    }

    /// Returns the number of records.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns `true` if the bulk has no records.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the size of all values, in bytes.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns each partition in the bulk with its last offset and its number of
    /// records.
    #[must_use]
    pub(super) fn partitions(&self) -> Vec<(Partition, Offset, u64)> {
        let mut partitions: Vec<(Partition, Offset, u64)> = Vec::new();
        for record in &self.records {
            match partitions.iter_mut().find(|(partition, ..)| *partition == record.partition) {
                Some((_, last, records)) => {
                    *last = record.offset;
                    *records += 1;
                }
                None => partitions.push((record.partition, record.offset, 1)),
            }
        }
        partitions
    }
}

/// Gathers records into the next bulk.
#[derive(Debug)]
pub(super) struct Batcher {
    limits: BulkLimits,
    bulk: Bulk,
    /// When its first record was added.
    since: Instant,
}

impl Batcher {
    /// Creates a batcher with an empty bulk.
    #[must_use]
    pub(super) fn new(limits: BulkLimits, now: Instant) -> Self {
        Self { limits, bulk: Bulk::default(), since: now }
    }

    /// Adds a record.
    pub(super) fn push(&mut self, record: &Delivered<'_>, now: Instant) {
        if self.bulk.is_empty() {
            self.since = now;
        }
        let start = self.bulk.bytes.len();
        self.bulk.bytes.extend_from_slice(record.value.unwrap_or_default());
        self.bulk.records.push(RecordMeta {
            partition: record.partition,
            offset: record.offset,
            queued_at: record.queued_at,
            value: record.value.map(|_| start..self.bulk.bytes.len()),
        });
    }

    /// Returns `true` if the bulk has reached a limit.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.bulk.len() >= self.limits.records || self.bulk.size() >= self.limits.bytes
    }

    /// Returns how much longer the bulk may wait for records, or `None` if it is
    /// empty. `is_idle` means that no other bulk is in flight.
    #[must_use]
    pub(super) fn remaining_linger(&self, now: Instant, is_idle: bool) -> Option<Duration> {
        if self.bulk.is_empty() {
            return None;
        }
        if self.is_full() {
            return Some(Duration::ZERO);
        }
        let is_small = self.bulk.len() <= self.limits.small_bulk;
        let linger =
            if is_idle && is_small { self.limits.linger_idle } else { self.limits.linger_busy };
        Some(linger.saturating_sub(now.saturating_duration_since(self.since)))
    }

    /// Takes the bulk and starts a new one. Returns `None` if it is empty.
    pub(super) fn take(&mut self) -> Option<Bulk> {
        if self.bulk.is_empty() {
            return None;
        }
        let next = Bulk {
            bytes: Vec::with_capacity(self.bulk.bytes.len()),
            records: Vec::with_capacity(self.bulk.records.len()),
        };
        Some(std::mem::replace(&mut self.bulk, next))
    }

    /// Drops the records of these partitions and returns their number.
    pub(super) fn discard(&mut self, partitions: &[Partition]) -> usize {
        let before = self.bulk.records.len();
        self.bulk.records.retain(|record| !partitions.contains(&record.partition));
        if self.bulk.records.is_empty() {
            self.bulk.bytes.clear();
        }
        before - self.bulk.records.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BulkLimits = BulkLimits {
        records: 3,
        bytes: 10,
        linger_busy: Duration::from_millis(50),
        linger_idle: Duration::from_millis(5),
        small_bulk: 1,
    };

    fn delivered(partition: Partition, offset: Offset, value: &[u8]) -> Delivered<'_> {
        let queued_at = Timestamp::from_millis(0).unwrap();
        Delivered { partition, offset, queued_at, value: Some(value) }
    }

    #[test]
    fn a_bulk_is_due_by_count_by_size_or_by_age() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS, start);
        assert_eq!(batcher.remaining_linger(start, true), None);
        batcher.push(&delivered(0, 0, b"x"), start);
        assert_eq!(batcher.remaining_linger(start, true), Some(LIMITS.linger_idle));
        assert_eq!(batcher.remaining_linger(start, false), Some(LIMITS.linger_busy));
        let later = start + LIMITS.linger_busy;
        assert_eq!(batcher.remaining_linger(later, false), Some(Duration::ZERO));
        batcher.push(&delivered(0, 1, b"0123456789"), start);
        assert!(batcher.is_full(), "by size");
        assert_eq!(batcher.take().unwrap().len(), 2);
        for offset in 2..5 {
            assert!(!batcher.is_full());
            batcher.push(&delivered(0, offset, b""), start);
        }
        assert!(batcher.is_full(), "by count");
    }

    proptest! {
        #[test]
        fn a_bulk_holds_the_pushed_records_except_discarded_ones(
            records in prop::collection::vec(
                (0..3i32, prop::option::of(prop::collection::vec(any::<u8>(), 0..6))),
                0..20,
            ),
            discarded in 0..3i32,
        ) {
            let now = Instant::now();
            let mut batcher = Batcher::new(LIMITS, now);
            for (offset, (partition, value)) in (0..).zip(&records) {
                let value = value.as_deref();
                batcher.push(&Delivered { value, ..delivered(*partition, offset, b"") }, now);
            }
            let count = batcher.discard(&[discarded]);
            let expected: Vec<_> = (0..)
                .zip(&records)
                .filter(|(_, (partition, _))| *partition != discarded)
                .map(|(offset, (partition, value))| (*partition, offset, value.clone()))
                .collect();
            prop_assert_eq!(count, records.len() - expected.len());
            let bulk = batcher.take().unwrap_or_default();
            let actual: Vec<_> =
                bulk.iter().map(|r| (r.partition, r.offset, r.value.map(<[u8]>::to_vec))).collect();
            for (partition, last, records) in bulk.partitions() {
                let expected: Vec<_> = expected.iter().filter(|r| r.0 == partition).collect();
                prop_assert_eq!(Some(last), expected.last().map(|r| r.1));
                prop_assert_eq!(records, expected.len() as u64);
            }
            prop_assert_eq!(actual, expected);
        }
    }
}
