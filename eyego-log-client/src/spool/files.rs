//! The files of the spool: their order and total size, and when they are synced.
//!
//! Records are appended to the newest file until it reaches its size limit, and
//! then to a new file. A file is deleted once all of its events are settled; the
//! newest file is truncated and reused instead. The numbers in the file names
//! increase, so their order is the order of the events.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime};

use crate::model::errors::ConfigError;
use crate::model::loss_reason::LossReason;
use crate::model::os_error::{is_out_of_descriptors, is_shortage};
use crate::model::setup_error::SetupError;
use crate::spool::directory::{
    LOCK, create_file, exists, is_deleted, open_lock_file, path_of, spool_files, sync_dir,
};
use crate::spool::format::{HEADER_BYTES, Header, MAGIC};
use crate::spool::options::{SpoolOptions, SpoolSync};
use crate::spool::record::{Extent, Recovered, TOO_OLD, Unread};
use crate::spool::recovery::{self, quarantine, quarantine_record};
use crate::spool::segment::{Record, Segment};

/// The size at which a file is complete, in bytes.
const SEGMENT_BYTES: u64 = 8 << 20;

/// A file is also complete at this fraction of the spool's maximum size.
const MIN_SEGMENTS: u64 = 8;

/// How often the spool checks that its files still exist.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Spool {
    options: SpoolOptions,
    /// The files, oldest first.
    segments: VecDeque<Segment>,
    /// The newest file, unless writing to it has failed.
    writer: Option<File>,
    next_number: u64,
    /// The size of all files together.
    bytes: u64,
    /// When the first unsynced record was written.
    dirty_since: Option<Instant>,
    checked_at: Option<Instant>,
    /// The operating system releases the lock when the process ends. `None`
    /// after the directory was deleted.
    lock: Option<File>,
}

impl Spool {
    /// Locks the directory, creating it if necessary, and scans the files in it.
    ///
    /// # Errors
    /// Returns a [`SetupError`] if the directory cannot be created, written or
    /// read, or if another client has locked it. Damage is not an error.
    pub(crate) fn open(options: &SpoolOptions) -> Result<(Self, Recovered), SetupError> {
        let dir = &options.dir;
        let invalid =
            |problem: String| ConfigError::new("spool_dir", format!("{} {problem}", dir.display()));
        let unusable = |error: io::Error| {
            let invalid = invalid(format!("cannot be used: {error}"));
            if is_out_of_descriptors(&error) {
                SetupError::NoDescriptor(invalid.to_string())
            } else {
                SetupError::Config(invalid)
            }
        };
        let lock = lock_directory(options).map_err(|error| match error {
            TryLockError::WouldBlock => {
                let problem = "is in use by another client of this or another process; \
                               each client needs its own directory";
                invalid(problem.to_owned()).into()
            }
            TryLockError::Error(error) => unusable(error),
        })?;
        let mut spool = Self {
            options: options.clone(),
            segments: VecDeque::new(),
            writer: None,
            next_number: 0,
            bytes: 0,
            dirty_since: None,
            checked_at: None,
            lock: Some(lock),
        };
        let files = spool_files(dir).map_err(unusable)?;
        spool.next_number = files.last().map_or(0, |(newest, _)| newest + 1);
        // Reports a directory that is not writable now rather than later, and before
        // anything in it is changed. Delivery can end a shortage of disk space.
        match spool.begin_segment() {
            Err(error) if !is_shortage(&error) => return Err(unusable(error)),
            _ => {}
        }
        let newest = spool.segments.pop_back();
        let mut recovered = Recovered::default();
        for (number, path) in files {
            if let Some(segment) = recovery::open(number, path, &mut recovered).map_err(unusable)? {
                spool.bytes += segment.file_bytes;
                spool.segments.push_back(segment);
            }
        }
        spool.segments.extend(newest);
        Ok((spool, recovered))
    }

    /// Returns the size of all files together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether a record with lines of this length fits.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        let needed = (MAGIC.len() + HEADER_BYTES + length) as u64;
        self.bytes + needed <= self.options.max_bytes
    }

    /// Returns whether there is an unread record.
    pub(crate) fn has_unread(&self) -> bool {
        self.segments.iter().any(|segment| segment.unread.records > 0)
    }

    /// Returns whether the file with this number still exists.
    pub(crate) fn has_file(&self, number: u64) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|segment| segment.number == number && exists(&segment.path))
    }

    /// Returns what is unread in each file, and whether the file still exists.
    pub(crate) fn unread(&self) -> Vec<(Extent, bool)> {
        let with_unread = self.segments.iter().filter(|segment| segment.unread.records > 0);
        with_unread.map(|segment| (segment.unread, exists(&segment.path))).collect()
    }

    /// Appends a record and returns the number of its file. If `is_held` is
    /// true, the caller keeps the batch in memory and the record is not read
    /// back.
    ///
    /// # Errors
    /// Returns the I/O error if the record could not be written or synced. It is
    /// not in the spool then.
    pub(crate) fn append(
        &mut self,
        lines: &[u8],
        events: usize,
        is_held: bool,
        now: Instant,
    ) -> io::Result<u64> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "the batch is too large");
        let header = Header::for_lines(lines, events).ok_or_else(too_large)?;
        self.check_writer()?;
        let segment_bytes = SEGMENT_BYTES.min(self.options.max_bytes / MIN_SEGMENTS);
        let is_full = self.segments.back().is_none_or(|newest| newest.bytes >= segment_bytes);
        // Held records come before the unread ones of their file.
        let has_unread = self.segments.back().is_some_and(|newest| newest.unread.records > 0);
        if self.writer.is_none() || is_full || (is_held && has_unread) {
            self.begin_segment()?;
        }
        if let Err(error) = self.write(header, lines) {
            self.abandon_segment();
            return Err(error);
        }
        let Some(newest) = self.segments.back_mut() else { return Err(too_large()) };
        newest.append(header, is_held);
        self.bytes += header.record_bytes();
        if self.options.sync != SpoolSync::EachBatch {
            self.dirty_since.get_or_insert(now);
        }
        Ok(newest.number)
    }

    fn write(&mut self, header: Header, lines: &[u8]) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write_all(&header.encode())?;
        writer.write_all(lines)?;
        match self.options.sync {
            SpoolSync::EachBatch => writer.sync_data(),
            SpoolSync::Every(_) => Ok(()),
        }
    }

    /// Reads the next unread record. Records that are too old are not read.
    pub(crate) fn read(&mut self) -> Option<Unread> {
        if let Some(expired) = self.take_expired() {
            return Some(expired);
        }
        let index = self.next_unread()?;
        let is_newest = index + 1 == self.segments.len();
        let left = self.time_left(index);
        let segment = &mut self.segments[index];
        let number = segment.number;
        let lost = |lost, reason, message| Unread::Lost { lost, reason, message };
        let unread = match segment.read() {
            Record::Lines(lines) => {
                let expires_at = left.map(|left| Instant::now() + left);
                Unread::Lines { segment: number, lines, expires_at }
            }
            Record::Damaged { lost: extent, bytes } => {
                let kept = quarantine_record(&segment.path, &bytes);
                let message = format!("a record in {} is damaged; {kept}", segment.path.display());
                if is_newest {
                    // Do not write to a damaged file.
                    self.writer = None;
                }
                lost(extent, LossReason::Damaged, message)
            }
            Record::Unavailable(error) => {
                let message = format!("{} cannot be read now: {error}", segment.path.display());
                Unread::Unavailable { message }
            }
            Record::Failed { lost: extent, error } => {
                let message = format!(
                    "{} cannot be read: {error}; it is quarantined once its other events are settled",
                    segment.path.display()
                );
                if is_newest {
                    self.writer = None;
                }
                lost(extent, LossReason::Damaged, message)
            }
        };
        if matches!(unread, Unread::Lost { .. }) {
            self.delete_if_done(number);
        }
        Some(unread)
    }

    /// Gives up the unread records of the oldest file if they are too old.
    pub(crate) fn take_expired(&mut self) -> Option<Unread> {
        let index = self.next_unread()?;
        if self.time_left(index) != Some(Duration::ZERO) {
            return None;
        }
        let segment = &mut self.segments[index];
        let (number, lost) = (segment.number, segment.skip_unread());
        self.delete_if_done(number);
        let message = TOO_OLD.to_owned();
        Some(Unread::Lost { lost, reason: LossReason::Expired, message })
    }

    /// Returns when [`take_expired`](Self::take_expired) has something to do.
    pub(crate) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        Some(now + self.time_left(self.next_unread()?)?)
    }

    /// Returns the index of the oldest file with an unread record.
    fn next_unread(&self) -> Option<usize> {
        self.segments.iter().position(|segment| segment.unread.records > 0)
    }

    /// Returns how long it takes until a file reaches the maximum age.
    fn time_left(&self, index: usize) -> Option<Duration> {
        let max_age = self.options.max_age?;
        let written_at = self.segments.get(index)?.written_at;
        let age = SystemTime::now().duration_since(written_at).unwrap_or_default();
        Some(max_age.saturating_sub(age))
    }

    /// Returns when events that are spooled now reach their maximum age.
    pub(crate) fn expires_at(&self, now: Instant) -> Option<Instant> {
        self.options.max_age.map(|max| now + max)
    }

    /// Records that events of this file that were held or read are delivered or
    /// lost, and deletes the file once that is true of all its events.
    pub(crate) fn settle(&mut self, number: u64, events: u64) {
        let mut segments = self.segments.iter_mut();
        if let Some(segment) = segments.find(|segment| segment.number == number) {
            segment.settle(events);
            self.delete_if_done(number);
        }
    }

    fn delete_if_done(&mut self, number: u64) {
        let Some(index) = self.segments.iter().position(|segment| segment.number == number) else {
            return;
        };
        let is_newest = index + 1 == self.segments.len();
        let segment = &mut self.segments[index];
        if !segment.is_done() {
            return;
        }
        let bytes = segment.file_bytes;
        if let Some(writer) = self.writer.as_ref().filter(|_| is_newest) {
            if writer.set_len(MAGIC.len() as u64).is_ok() {
                segment.reset();
                self.bytes -= bytes - segment.file_bytes;
                self.dirty_since = None;
                return;
            }
            self.writer = None;
        }
        // If the file cannot be deleted, the next process sends its events
        // again, under the same ids.
        let _ = match segment.is_unreadable {
            true => quarantine(&segment.path).map(drop),
            false => fs::remove_file(&segment.path),
        };
        self.bytes -= bytes;
        self.segments.remove(index);
    }

    /// Returns when the next sync is due.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        match self.options.sync {
            SpoolSync::EachBatch => None,
            SpoolSync::Every(interval) => self.dirty_since.map(|since| since + interval),
        }
    }

    /// Syncs the newest file if that is due.
    ///
    /// # Errors
    /// Returns the I/O error if the sync failed, or if the files were deleted.
    pub(crate) fn sync_if_due(&mut self, now: Instant) -> io::Result<()> {
        if self.checked_at.is_none_or(|at| at + CHECK_INTERVAL <= now) {
            self.checked_at = Some(now);
            self.check_writer()?;
        }
        if self.sync_at().is_some_and(|at| at <= now) { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dirty_since = None;
        match &self.writer {
            Some(writer) => writer.sync_data(),
            None => Ok(()),
        }
    }

    /// Notices that the newest file was deleted. Writing to it would be of no
    /// use; the next file is created in a new directory.
    ///
    /// # Errors
    /// Returns an error that says so if the file was deleted.
    pub(crate) fn check_writer(&mut self) -> io::Result<()> {
        let (Some(writer), Some(newest)) = (&self.writer, self.segments.back()) else {
            return Ok(());
        };
        if !is_deleted(writer, &newest.path) {
            return Ok(());
        }
        self.writer = None;
        self.dirty_since = None;
        let number = newest.number;
        let mut on_disk = 0;
        for segment in self.segments.iter_mut().filter(|segment| !exists(&segment.path)) {
            on_disk += segment.unread.events;
            self.bytes -= std::mem::take(&mut segment.file_bytes);
        }
        self.delete_if_done(number);
        let mut message = "its files were deleted".to_owned();
        if on_disk > 0 {
            message.push_str(&format!(", and {on_disk} events that were only there"));
        }
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }

    /// Makes sure that there is a file to write to. Creates the directory again if
    /// it was deleted.
    ///
    /// # Errors
    /// Returns the I/O error if the file could not be created.
    pub(crate) fn prepare_to_write(&mut self) -> io::Result<()> {
        if self.writer.is_none() { self.begin_segment() } else { Ok(()) }
    }

    /// Creates the next file.
    fn begin_segment(&mut self) -> io::Result<()> {
        if self.dirty_since.is_some() {
            self.sync()?;
        }
        self.writer = None;
        if !exists(&self.options.dir.join(LOCK)) {
            self.lock = None;
        }
        if self.lock.is_none() {
            self.lock = Some(lock_directory(&self.options)?);
        }
        let path = path_of(&self.options.dir, self.next_number);
        let mut file = create_file(&path)?;
        let written = file.write_all(&MAGIC).and_then(|()| sync_dir(&self.options.dir));
        if let Err(error) = written {
            // The first error is the one to return.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let segment = Segment::empty(self.next_number, path);
        self.next_number += 1;
        self.bytes += segment.file_bytes;
        self.segments.push_back(segment);
        self.writer = Some(file);
        Ok(())
    }

    /// Stops writing to the newest file after a failure. Its earlier records are
    /// kept; a partial record is cut off.
    fn abandon_segment(&mut self) {
        let (Some(writer), Some(newest)) = (self.writer.take(), self.segments.back()) else {
            return;
        };
        // If this fails too, the next process finds an incomplete record.
        let _ = writer.set_len(newest.bytes);
        self.dirty_since = None;
        let number = newest.number;
        self.delete_if_done(number);
    }
}

impl Drop for Spool {
    /// Syncs the remaining events and deletes files without any.
    fn drop(&mut self) {
        let _ = self.sync();
        self.writer = None;
        for segment in self.segments.iter().filter(|segment| segment.is_done()) {
            let _ = fs::remove_file(&segment.path);
        }
    }
}

fn lock_directory(options: &SpoolOptions) -> Result<File, TryLockError> {
    let file = open_lock_file(&options.dir).map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
