//! Appends of the suite, and a consumer that keeps the records it received.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use eyego_log_core::Timestamp;
use eyego_log_server::domain::position::{Offset, Partition};
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::domain::record_batch::RecordBatch;
use eyego_log_server::domain::subscription::{Signal, Subscription};
use stack::eventually_blocking;

use crate::conformance::blocking;
use crate::fixture::TIMEOUT;

pub(super) const KEYS: [&str; 8] = ["ada", "bob", "cem", "dao", "eva", "fay", "gus", "Ümit"];

pub(super) fn batch<'a>(records: impl IntoIterator<Item = (&'a str, String)>) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for (key, value) in records {
        batch.push_encoded(key.as_bytes(), format!("{key}:{value}").as_bytes());
    }
    batch
}

pub(super) async fn append<'a>(
    queue: &Arc<dyn LogQueue>,
    records: impl IntoIterator<Item = (&'a str, String)>,
) {
    for result in queue.append(batch(records)).await {
        result.unwrap();
    }
}

pub(super) async fn append_one_per_key(queue: &Arc<dyn LogQueue>, value: &str) {
    append(queue, KEYS.map(|key| (key, value.to_owned()))).await;
}

/// A delivered record.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) queued_at: Timestamp,
    pub(super) value: Option<Vec<u8>>,
}

impl Seen {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.value.clone().unwrap()).unwrap()
    }
}

/// A consumer that keeps the records it received.
pub(super) struct Consumer {
    pub(super) subscription: Box<dyn Subscription>,
    pub(super) assigned: HashSet<Partition>,
    pub(super) records: Vec<Seen>,
    pub(super) delivered_unassigned: Vec<Partition>,
}

impl Consumer {
    pub(super) fn of(queue: &Arc<dyn LogQueue>) -> Self {
        let subscription = queue.subscribe().unwrap();
        Self {
            subscription,
            assigned: HashSet::new(),
            records: Vec::new(),
            delivered_unassigned: Vec::new(),
        }
    }

    /// Polls once, for at most this many records.
    pub(super) fn poll(&mut self, at_most: usize) {
        let Self { subscription, assigned, records, delivered_unassigned } = self;
        let end = records.len().saturating_add(at_most);
        let signal = blocking(|| {
            subscription.poll(Duration::from_millis(100), &mut |record| {
                if !assigned.contains(&record.partition) {
                    delivered_unassigned.push(record.partition);
                }
                records.push(Seen {
                    partition: record.partition,
                    offset: record.offset,
                    queued_at: record.queued_at,
                    value: record.value.map(<[u8]>::to_vec),
                });
                if records.len() < end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        });
        match signal {
            // Errors are temporary, and the caller has a deadline.
            Ok(Signal::None | Signal::Expired(..)) | Err(_) => {}
            Ok(Signal::Assigned(partitions)) => assigned.extend(partitions),
            Ok(Signal::Revoked(partitions, _) | Signal::Lost(partitions)) => {
                assigned.retain(|partition| !partitions.contains(partition));
                subscription.release();
            }
        }
    }

    /// Calls `step`, which polls, until it succeeds.
    pub(super) fn poll_until(&mut self, what: &str, mut step: impl FnMut(&mut Self) -> Result<()>) {
        blocking(|| eventually_blocking(what, TIMEOUT, || step(self))).unwrap();
    }

    /// Reads until it has received this many records in total.
    pub(super) fn read(&mut self, count: usize) {
        if self.records.len() < count {
            self.poll_until(&format!("{count} records"), |consumer| {
                consumer.poll(usize::MAX);
                ensure!(consumer.records.len() >= count, "{} records", consumer.records.len());
                Ok(())
            });
        }
        assert_eq!(self.records.len(), count, "more records than expected");
    }

    /// Reads all records of these keys: appends one marker per key, reads until it has received the
    /// markers, and removes them.
    pub(super) async fn read_to_the_end(&mut self, queue: &Arc<dyn LogQueue>, keys: &[&str]) {
        append(queue, keys.iter().map(|key| (*key, "marker".to_owned()))).await;
        let is_marker = |record: &Seen| record.text().ends_with(":marker");
        self.poll_until("the markers", |consumer| {
            consumer.poll(usize::MAX);
            let markers = consumer.records.iter().filter(|record| is_marker(record)).count();
            ensure!(markers >= keys.len(), "{markers} of {}", keys.len());
            Ok(())
        });
        self.records.retain(|record| !is_marker(record));
    }

    pub(super) fn wait_for_lag(&mut self, expected: u64) {
        self.poll_until(&format!("a lag of {expected}"), |consumer| {
            let lag: u64 = consumer.subscription.lag().iter().map(|(_, lag)| lag).sum();
            if lag != expected {
                consumer.poll(usize::MAX);
            }
            ensure!(lag == expected, "a lag of {lag}");
            Ok(())
        });
    }

    pub(super) fn commit(&mut self, next_offsets: &[(Partition, Offset)]) {
        blocking(|| self.subscription.commit(next_offsets)).unwrap();
    }

    pub(super) fn commit_all(&mut self) {
        let next_offsets: Vec<_> = self
            .by_partition()
            .into_iter()
            .map(|(partition, records)| (partition, records.last().unwrap().offset + 1))
            .collect();
        self.commit(&next_offsets);
    }

    pub(super) fn close(self) {
        blocking(|| self.subscription.close());
    }

    pub(super) fn by_partition(&self) -> HashMap<Partition, Vec<Seen>> {
        let mut by_partition: HashMap<_, Vec<_>> = HashMap::new();
        for record in &self.records {
            by_partition.entry(record.partition).or_default().push(record.clone());
        }
        by_partition
    }

    pub(super) fn assert_offsets_ascend(&self) {
        for (partition, records) in self.by_partition() {
            let ascend = records.is_sorted_by(|a, b| a.offset < b.offset);
            assert!(ascend, "partition {partition}: {records:?}");
        }
    }

    pub(super) fn values(&self) -> Vec<String> {
        self.records.iter().map(Seen::text).collect()
    }

    pub(super) fn value_set(&self) -> HashSet<String> {
        self.values().into_iter().collect()
    }
}
