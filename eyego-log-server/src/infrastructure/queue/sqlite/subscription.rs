//! The consumer side of the embedded queue. It reads through its own connection
//! and commits through the writer.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Job;
use super::chunk::{self, ChunkDecoder};
use super::rows::{self, StoredChunk};
use super::status::Status;
use super::submissions::Submitter;
use crate::domain::position::{Offset, Partition};
use crate::domain::subscription::{Delivered, QueueError, RecordSink, Signal, Subscription};
use crate::infrastructure::embedded;

const PARTITION: Partition = 0;

/// Maximum number of records per poll.
const RECORDS_PER_POLL: usize = 500;

/// Pause after all records have been read. Without it, each transaction of the
/// writer would wake this thread while records keep arriving.
const CAUGHT_UP_PAUSE: Duration = Duration::from_millis(5);

/// Time after which a commit is reported as failed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

pub(in crate::infrastructure::queue) struct SqliteSubscription {
    path: PathBuf,
    submitter: Submitter,
    status: Arc<Status>,
    /// Opened at the first read, and again after a failure.
    reader: Option<Connection>,
    decoder: ChunkDecoder,
    /// Kept in memory, because an open read transaction would hold up
    /// checkpoints.
    chunk: Option<OpenChunk>,
    /// Offset of the next record to deliver.
    next_offset: Offset,
    /// Missing or damaged records that have not been reported.
    lost: u64,
    /// When all records had been read, if the last poll read them all.
    caught_up: Option<Instant>,
    is_assigned: bool,
    is_paused: bool,
}

impl SqliteSubscription {
    pub(super) fn new(path: PathBuf, submitter: Submitter, status: Arc<Status>) -> Self {
        let next_offset = status.positions().committed;
        Self {
            path,
            submitter,
            status,
            reader: None,
            decoder: ChunkDecoder::default(),
            chunk: None,
            next_offset,
            lost: 0,
            caught_up: None,
            is_assigned: false,
            is_paused: false,
        }
    }

    /// Delivers available records, without waiting for more.
    fn deliver(&mut self, sink: &mut RecordSink<'_>) -> rusqlite::Result<()> {
        let mut remaining = RECORDS_PER_POLL;
        while remaining > 0 {
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
            // Skips records that were delivered or committed before the chunk was opened.
            if delivered.offset >= self.next_offset {
                self.next_offset = delivered.offset + 1;
                remaining -= 1;
                if sink(delivered).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the chunk that contains the next record. Returns `false` if there
    /// is none.
    fn open_chunk(&mut self) -> rusqlite::Result<bool> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => embedded::open_for_reading(&self.path)?,
        };
        let reader = self.reader.insert(reader);
        let Some(stored) = rows::chunk_at(reader, self.next_offset)? else { return Ok(false) };
        let first_offset = stored.first_offset;
        self.chunk = Some(OpenChunk::new(stored, &mut self.decoder));
        // Negative if the chunk contains records that were delivered before.
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

    /// Commits all delivered records.
    pub(in crate::infrastructure::queue) fn commit_delivered(&mut self) -> Result<(), QueueError> {
        self.commit(&[(PARTITION, self.next_offset)])
    }

    /// Keeps a copy of the chunk that contains this record, even after the
    /// record is committed.
    pub(in crate::infrastructure::queue) fn quarantine(&self, offset: Offset) {
        // If the writer has stopped, the record stays uncommitted and is found
        // again after a restart.
        let _ = self.submitter.submit(Job::Quarantine { offset });
    }

    /// Advances past the chunk, and quarantines it if some records are damaged.
    fn close_chunk(&mut self) {
        let Some(chunk) = self.chunk.take() else { return };
        let stored = chunk.stored;
        self.next_offset = stored.first_offset + Offset::from(stored.records);
        let damaged = stored.records - chunk.intact;
        if damaged > 0 {
            tracing::error!(
                file = %self.path.display(),
                first_offset = stored.first_offset,
                records = stored.records,
                damaged,
                "records are damaged: the table `quarantined` keeps a copy"
            );
            self.quarantine(stored.first_offset);
        }
        self.lost += u64::from(damaged);
    }
}

/// The chunk whose records are being delivered.
struct OpenChunk {
    /// The chunk with decoded bytes, which are empty if decoding failed.
    stored: StoredChunk,
    /// Position of the next record in the bytes.
    position: usize,
    next_offset: Offset,
    /// Number of intact records so far.
    intact: u32,
}

impl OpenChunk {
    fn new(mut stored: StoredChunk, decoder: &mut ChunkDecoder) -> Self {
        let row = std::mem::take(&mut stored.bytes);
        stored.bytes = decoder.decode(row).unwrap_or_default();
        let next_offset = stored.first_offset;
        Self { stored, position: 0, next_offset, intact: 0 }
    }

    /// Returns the next intact record.
    fn next(&mut self) -> Option<Delivered<'_>> {
        let end = self.stored.first_offset + Offset::from(self.stored.records);
        while self.next_offset < end {
            let mut rest = &self.stored.bytes[self.position..];
            let record = chunk::next_record(&mut rest)?;
            self.position = self.stored.bytes.len() - rest.len();
            let offset = self.next_offset;
            self.next_offset += 1;
            if let Ok(value) = record {
                self.intact += 1;
                // Returning `value` itself would borrow `self` for the whole
                // loop, which the borrow checker rejects.
                let (start, end) = (self.position - value.len(), self.position);
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
        let pause = self.caught_up.take().map(|at| CAUGHT_UP_PAUSE.saturating_sub(at.elapsed()));
        let pause = pause.unwrap_or_default().min(timeout);
        std::thread::sleep(pause);
        if self.status.wait_for(self.next_offset, timeout - pause) {
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
        let offsets = next_offsets.iter().filter(|(partition, _)| *partition == PARTITION);
        let Some(next_offset) = offsets.map(|(_, offset)| *offset).max() else { return Ok(()) };
        let (reply, outcome) = mpsc::channel();
        if !self.submitter.submit(Job::Commit { next_offset, reply }) {
            return Err(QueueError::new("the embedded queue is closed"));
        }
        match outcome.recv_timeout(COMMIT_TIMEOUT) {
            Ok(outcome) => outcome.map_err(QueueError::new),
            Err(error) => Err(QueueError::because("the commit did not complete", error)),
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
