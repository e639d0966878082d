//! Gathers delivered records into bulks. Pure: time comes in as an argument.

use std::ops::Range;
use std::time::{Duration, Instant};

use eyego_log_core::Timestamp;

use crate::domain::queue::{Offset, Partition};
use crate::domain::subscription::Delivered;

/// When a bulk is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct BulkLimits {
    /// Records in a bulk at most.
    pub(super) records: usize,
    /// Bytes of records in a bulk; the record that passes it is the last.
    pub(super) bytes: usize,
    /// How long the first record of a bulk waits for others while others come:
    /// larger bulks cost the store less.
    pub(super) linger_busy: Duration,
    /// The same where hardly any have come, and no bulk is on its way:
    /// waiting then only costs latency.
    pub(super) linger_idle: Duration,
    /// How many records are hardly any.
    pub(super) few: usize,
}

/// Some records, in the order delivered, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    bytes: Vec<u8>,
    records: Vec<RecordPlace>,
}

#[derive(Debug)]
struct RecordPlace {
    partition: Partition,
    offset: Offset,
    queued_at: Timestamp,
    value: Option<Range<usize>>,
}

/// One record of a bulk.
#[derive(Debug, Clone, Copy)]
pub(super) struct BulkRecord<'a> {
    /// Its partition.
    pub(super) partition: Partition,
    /// Its place there.
    pub(super) offset: Offset,
    /// When the queue took it.
    pub(super) queued_at: Timestamp,
    /// Its bytes; `None` for a record without a value, which says nothing.
    pub(super) value: Option<&'a [u8]>,
}

impl Bulk {
    /// The records.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = BulkRecord<'_>> {
        self.records.iter().map(|record| BulkRecord {
            partition: record.partition,
            offset: record.offset,
            queued_at: record.queued_at,
            value: record.value.clone().map(|range| &self.bytes[range]),
        })
    }

    /// How many records there are.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all records.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Each partition in the bulk, its last offset, and its number of records.
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

/// The bulk that is being gathered.
#[derive(Debug)]
pub(super) struct Batcher {
    limits: BulkLimits,
    bulk: Bulk,
    /// When its first record came.
    since: Instant,
}

impl Batcher {
    /// An empty one.
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
        self.bulk.records.push(RecordPlace {
            partition: record.partition,
            offset: record.offset,
            queued_at: record.queued_at,
            value: record.value.map(|_| start..self.bulk.bytes.len()),
        });
    }

    /// Whether the bulk takes no more.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.bulk.len() >= self.limits.records || self.bulk.size() >= self.limits.bytes
    }

    /// How long the bulk may still wait; `None` while it is empty.
    #[must_use]
    pub(super) fn patience(&self, now: Instant, is_idle: bool) -> Option<Duration> {
        if self.bulk.is_empty() {
            return None;
        }
        if self.is_full() {
            return Some(Duration::ZERO);
        }
        let is_quiet = is_idle && self.bulk.len() <= self.limits.few;
        let linger = if is_quiet { self.limits.linger_idle } else { self.limits.linger_busy };
        Some(linger.saturating_sub(now.saturating_duration_since(self.since)))
    }

    /// The bulk as it is; a new one begins.
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

    /// Drops the records of these partitions; answers how many there were.
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
        few: 1,
    };

    fn delivered(partition: Partition, offset: Offset, value: &[u8]) -> Delivered<'_> {
        let queued_at = Timestamp::from_millis(0).unwrap();
        Delivered { partition, offset, queued_at, value: Some(value) }
    }

    #[test]
    fn a_bulk_is_due_by_count_by_bytes_or_by_age() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS, start);
        assert_eq!(batcher.patience(start, true), None);
        batcher.push(&delivered(0, 0, b"x"), start);
        assert_eq!(batcher.patience(start, true), Some(LIMITS.linger_idle));
        assert_eq!(batcher.patience(start, false), Some(LIMITS.linger_busy));
        let later = start + LIMITS.linger_busy;
        assert_eq!(batcher.patience(later, false), Some(Duration::ZERO));
        batcher.push(&delivered(0, 1, b"0123456789"), start);
        assert!(batcher.is_full(), "by bytes");
        assert_eq!(batcher.take().unwrap().len(), 2);
        for offset in 2..5 {
            assert!(!batcher.is_full());
            batcher.push(&delivered(0, offset, b""), start);
        }
        assert!(batcher.is_full(), "by count");
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(
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
