//! The consumer's end of the embedded queue: reads through a connection of its
//! own, commits through the writer.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, atomic};
use std::time::Duration;

use eyego_log_core::Timestamp;
use rusqlite::Connection;

use super::Job;
use super::inbox::Outbox;
use super::status::Status;
use crate::domain::queue::{
    Delivered, Offset, Partition, QueueError, RecordSink, Signal, Subscription,
};
use crate::infrastructure::embedded;

const PARTITION: Partition = 0;

/// A read transaction holds up the merging of the write-ahead log: it ends
/// after so many records.
const RECORDS_PER_POLL: i64 = 500;

/// A commit that takes longer has failed, as far as the caller is concerned.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SqliteSubscription {
    path: PathBuf,
    jobs: Outbox,
    status: Arc<Status>,
    /// Opened when it is first needed, and again after it failed.
    reader: Option<Connection>,
    /// The offset after the last record delivered.
    next_offset: Offset,
    is_assigned: bool,
    is_paused: bool,
}

impl SqliteSubscription {
    pub(super) fn new(path: PathBuf, jobs: Outbox, status: Arc<Status>) -> Self {
        let next_offset = status.positions().committed;
        let (reader, is_assigned, is_paused) = (None, false, false);
        Self { path, jobs, status, reader, next_offset, is_assigned, is_paused }
    }

    fn deliver(&mut self, sink: &mut RecordSink<'_>) -> rusqlite::Result<()> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => embedded::open_for_reading(&self.path)?,
        };
        let reader = self.reader.insert(reader);
        let mut select = reader.prepare_cached(
            "SELECT offset, queued_at, value FROM records WHERE offset >= ?1 \
             ORDER BY offset LIMIT ?2",
        )?;
        let mut rows = select.query([self.next_offset, RECORDS_PER_POLL])?;
        while let Some(row) = rows.next()? {
            let offset = row.get(0)?;
            let delivered = Delivered {
                partition: PARTITION,
                offset,
                queued_at: Timestamp::from_millis_clamped(row.get(1)?),
                value: row.get_ref(2)?.as_blob_or_null()?,
            };
            self.next_offset = offset + 1;
            if let ControlFlow::Break(()) = sink(delivered) {
                break;
            }
        }
        Ok(())
    }
}

impl Subscription for SqliteSubscription {
    fn poll(&mut self, timeout: Duration, sink: &mut RecordSink<'_>) -> Result<Signal, QueueError> {
        if !self.is_assigned {
            self.is_assigned = true;
            return Ok(Signal::Assigned(vec![PARTITION]));
        }
        if self.is_paused {
            std::thread::sleep(timeout);
        } else if self.status.wait_for(self.next_offset, timeout) {
            self.deliver(sink).map_err(|error| {
                self.reader = None;
                QueueError::because("cannot read the embedded queue", error)
            })?;
        }
        Ok(Signal::None)
    }

    fn commit(&mut self, next_offsets: &[(Partition, Offset)]) -> Result<(), QueueError> {
        let ours = next_offsets.iter().filter(|(partition, _)| *partition == PARTITION);
        let Some(next_offset) = ours.map(|(_, offset)| *offset).max() else { return Ok(()) };
        let (reply, answer) = mpsc::channel();
        if !self.jobs.send(Job::Commit { next_offset, reply }) {
            return Err(QueueError::new("the embedded queue is closed"));
        }
        match answer.recv_timeout(COMMIT_TIMEOUT) {
            Ok(outcome) => outcome.map_err(QueueError::new),
            Err(error) => Err(QueueError::because("the commit was not answered", error)),
        }
    }

    fn release(&mut self) {}

    fn pause(&mut self) -> Result<(), QueueError> {
        self.is_paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), QueueError> {
        self.is_paused = false;
        Ok(())
    }

    fn lag(&self) -> Vec<(Partition, u64)> {
        let positions = self.status.positions();
        let lag = positions.end - positions.committed;
        vec![(PARTITION, u64::try_from(lag).unwrap_or(0))]
    }

    fn close(self: Box<Self>) {}
}

impl Drop for SqliteSubscription {
    fn drop(&mut self) {
        self.status.has_subscriber.store(false, atomic::Ordering::Release);
    }
}
