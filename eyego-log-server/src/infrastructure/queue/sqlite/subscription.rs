//! The consumer's end of the embedded queue: reads through a connection of its
//! own, commits through the writer.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Job;
use super::chunk::{self, Unpacker};
use super::inbox::Outbox;
use super::rows::{self, StoredChunk};
use super::status::Status;
use crate::domain::queue::{Offset, Partition};
use crate::domain::subscription::{Delivered, QueueError, RecordSink, Signal, Subscription};
use crate::infrastructure::embedded;

const PARTITION: Partition = 0;

/// A poll ends after so many records.
const RECORDS_PER_POLL: usize = 500;

/// Who has read all there was looks again only after this time: while records
/// keep coming, each transaction of the writer would wake this thread.
const BREATH: Duration = Duration::from_millis(5);

/// A commit that takes longer has failed, as far as the caller is concerned.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

pub(in crate::infrastructure::queue) struct SqliteSubscription {
    path: PathBuf,
    jobs: Outbox,
    status: Arc<Status>,
    /// Opened when it is first needed, and again after it failed.
    reader: Option<Connection>,
    unpacker: Unpacker,
    /// In memory, so that no read transaction holds up the merging of the
    /// write-ahead log.
    chunk: Option<OpenChunk>,
    /// The offset after the last record delivered.
    next_offset: Offset,
    /// Records found missing or damaged, and not yet reported.
    lost: u64,
    /// When all there was had been read.
    caught_up: Option<Instant>,
    is_assigned: bool,
    is_paused: bool,
}

impl SqliteSubscription {
    pub(super) fn new(path: PathBuf, jobs: Outbox, status: Arc<Status>) -> Self {
        let next_offset = status.positions().committed;
        Self {
            path,
            jobs,
            status,
            reader: None,
            unpacker: Unpacker::default(),
            chunk: None,
            next_offset,
            lost: 0,
            caught_up: None,
            is_assigned: false,
            is_paused: false,
        }
    }

    /// Delivers what is at hand.
    fn deliver(&mut self, sink: &mut RecordSink<'_>) -> rusqlite::Result<()> {
        let mut left = RECORDS_PER_POLL;
        while left > 0 {
            let Some(chunk) = &mut self.chunk else {
                if self.open_chunk()? {
                    continue;
                }
                self.caught_up = Some(Instant::now());
                break;
            };
            let Some(delivered) = chunk.next() else {
                self.close_chunk();
                continue;
            };
            // What is not new was delivered, or committed, before the chunk
            // was opened.
            if delivered.offset >= self.next_offset {
                self.next_offset = delivered.offset + 1;
                left -= 1;
                if sink(delivered).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the chunk with the next record, if there is one.
    fn open_chunk(&mut self) -> rusqlite::Result<bool> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => embedded::open_for_reading(&self.path)?,
        };
        let reader = self.reader.insert(reader);
        let Some(stored) = rows::chunk_at(reader, self.next_offset)? else { return Ok(false) };
        let first_offset = stored.first_offset;
        self.chunk = Some(OpenChunk::new(stored, &mut self.unpacker));
        // None, or the chunk has records that were delivered before.
        let missing = u64::try_from(first_offset - self.next_offset).unwrap_or(0);
        if missing > 0 {
            tracing::error!(
                file = %self.path.display(),
                from_offset = self.next_offset,
                missing,
                "records are missing from the file"
            );
            self.lost += missing;
            self.next_offset = first_offset;
        }
        Ok(true)
    }

    /// Commits all that was delivered.
    pub(in crate::infrastructure::queue) fn commit_delivered(&mut self) -> Result<(), QueueError> {
        self.commit(&[(PARTITION, self.next_offset)])
    }

    /// Keeps a copy of the chunk with this record in the file, whatever is
    /// committed.
    pub(in crate::infrastructure::queue) fn quarantined(&self, offset: Offset) {
        // Where the writer is gone, the record is found again.
        let _ = self.jobs.send(Job::SetAside { offset });
    }

    /// Goes past the chunk.
    fn close_chunk(&mut self) {
        let Some(chunk) = self.chunk.take() else { return };
        let stored = chunk.stored;
        self.next_offset = stored.first_offset + Offset::from(stored.records);
        let damaged = stored.records - chunk.whole;
        if damaged > 0 {
            let path = self.path.display();
            tracing::error!(
                file = %path,
                first_offset = stored.first_offset,
                records = stored.records,
                damaged,
                "the disk altered records: a copy is kept in the table quarantined"
            );
            self.quarantined(stored.first_offset);
        }
        self.lost += u64::from(damaged);
    }
}

/// A chunk of which records are being delivered.
struct OpenChunk {
    /// Unpacked; empty where that failed.
    stored: StoredChunk,
    /// Where the next record begins.
    at: usize,
    next_offset: Offset,
    /// How many were not damaged.
    whole: u32,
}

impl OpenChunk {
    fn new(mut stored: StoredChunk, unpacker: &mut Unpacker) -> Self {
        let packed = std::mem::take(&mut stored.bytes);
        stored.bytes = unpacker.unpack(packed).unwrap_or_default();
        let next_offset = stored.first_offset;
        Self { stored, at: 0, next_offset, whole: 0 }
    }

    /// The next whole record.
    fn next(&mut self) -> Option<Delivered<'_>> {
        let end = self.stored.first_offset + Offset::from(self.stored.records);
        while self.next_offset < end {
            let mut left = &self.stored.bytes[self.at..];
            let record = chunk::take(&mut left)?;
            self.at = self.stored.bytes.len() - left.len();
            let offset = self.next_offset;
            self.next_offset += 1;
            if let Ok(value) = record {
                self.whole += 1;
                // The borrow checker does not see that `left` is not needed
                // any more, were the value given out before.
                let (start, end) = (self.at - value.len(), self.at);
                return Some(Delivered {
                    partition: PARTITION,
                    offset,
                    queued_at: self.stored.queued_at,
                    value: Some(&self.stored.bytes[start..end]),
                });
            }
        }
        None
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
            return Ok(Signal::None);
        }
        let breath = self.caught_up.take().map(|at| BREATH.saturating_sub(at.elapsed()));
        let breath = breath.unwrap_or_default().min(timeout);
        std::thread::sleep(breath);
        if self.status.wait_for(self.next_offset, timeout - breath) {
            self.deliver(sink).map_err(|error| {
                self.reader = None;
                QueueError::because("cannot read the embedded queue", error)
            })?;
            let lost = std::mem::take(&mut self.lost);
            if lost > 0 {
                return Ok(Signal::Expired(PARTITION, lost));
            }
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
        vec![(PARTITION, self.status.positions().backlog())]
    }

    fn close(self: Box<Self>) {}
}

impl Drop for SqliteSubscription {
    fn drop(&mut self) {
        self.status.has_subscriber.store(false, atomic::Ordering::Release);
    }
}
