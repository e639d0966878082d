//! The spool directory: its lock, the order and total size of its files, and
//! when they are synced.
//!
//! Records are appended to the newest file until it reaches its size limit, and
//! then to a new file. A file is deleted once all of its events are settled; the
//! newest file is truncated and reused instead. The numbers in the file names
//! increase, so their order is the order of the events.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::model::errors::ConfigError;
use crate::spool::format::{HEADER_BYTES, Header, MAGIC};
use crate::spool::options::{SpoolOptions, SpoolSync};
use crate::spool::record::{Recovered, Unread};
use crate::spool::segment::{Segment, scan};

/// The size at which a file is complete, in bytes.
const SEGMENT_BYTES: u64 = 8 << 20;

/// A file is also complete at this fraction of the spool's maximum size.
const MIN_SEGMENTS: u64 = 8;

/// The extension of the file names.
const EXTENSION: &str = "spool";

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
    /// The operating system releases the lock when the process ends.
    _lock: File,
}

impl Spool {
    /// Locks the directory, creating it if necessary, and scans the files in it.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if the directory cannot be created, written or
    /// read, if another client has locked it, or if it contains a file that a
    /// later version of this crate wrote.
    pub(crate) fn open(options: SpoolOptions) -> Result<(Self, Recovered), ConfigError> {
        let dir = options.dir.clone();
        let invalid =
            |problem: String| ConfigError::new("spool_dir", format!("{} {problem}", dir.display()));
        let unusable = |error: io::Error| invalid(format!("cannot be used: {error}"));
        let lock = open_lock_file(&dir).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = "is in use by another client of this or another process; \
                               each client needs its own directory";
                return Err(invalid(problem.to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let mut spool = Self {
            options,
            segments: VecDeque::new(),
            writer: None,
            next_number: 0,
            bytes: 0,
            dirty_since: None,
            _lock: lock,
        };
        let mut recovered = Recovered::default();
        for (number, path) in spool_files(&dir).map_err(unusable)? {
            let file = File::open(&path).map_err(unusable)?;
            let bytes = file.metadata().map_err(unusable)?.len();
            let Some(scan) = scan(file, bytes).map_err(unusable)? else {
                let path = path.display();
                return Err(invalid(format!("contains a file of a later version: {path}")));
            };
            if scan.damaged > 0 {
                recovered.damaged += scan.damaged;
                let at = scan.good_bytes;
                recovered.message = format!("{} is damaged after byte {at}", path.display());
            }
            recovered.found.add(scan.found);
            spool.next_number = number + 1;
            if scan.found.events == 0 {
                fs::remove_file(&path).map_err(unusable)?;
            } else {
                spool.bytes += bytes;
                spool.segments.push_back(Segment::recovered(number, path, bytes, &scan));
            }
        }
        // Reports a directory that is not writable now rather than later.
        spool.begin_segment().map_err(unusable)?;
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

    /// Appends a record and returns the number of its file. If `is_held` is
    /// true, the caller keeps the batch in memory and the record is not read
    /// back; there must be no unread record then.
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
        let segment_bytes = SEGMENT_BYTES.min(self.options.max_bytes / MIN_SEGMENTS);
        let is_full = self.segments.back().is_none_or(|newest| newest.bytes >= segment_bytes);
        if self.writer.is_none() || is_full {
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

    /// Reads the next unread record.
    pub(crate) fn read(&mut self) -> Option<Unread> {
        let has_unread = |segment: &Segment| segment.unread.records > 0;
        let index = self.segments.iter().position(has_unread)?;
        let read = self.segments[index].read();
        if matches!(read, Unread::Lost { .. }) && index + 1 == self.segments.len() {
            // Do not write to a file that cannot be read.
            self.writer = None;
        }
        Some(read)
    }

    /// Records that events of this file are delivered or lost, and deletes the
    /// file once that is true of all its events.
    pub(crate) fn settle(&mut self, number: u64, events: u64) {
        let Some(index) = self.segments.iter().position(|segment| segment.number == number) else {
            return;
        };
        let is_newest = index + 1 == self.segments.len();
        let segment = &mut self.segments[index];
        segment.settled += events;
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
        let _ = fs::remove_file(&segment.path);
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
    /// Returns the I/O error if the sync failed.
    pub(crate) fn sync_if_due(&mut self, now: Instant) -> io::Result<()> {
        if self.sync_at().is_some_and(|at| at <= now) { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dirty_since = None;
        match &self.writer {
            Some(writer) => writer.sync_data(),
            None => Ok(()),
        }
    }

    /// Creates the next file.
    fn begin_segment(&mut self) -> io::Result<()> {
        if self.dirty_since.is_some() {
            self.sync()?;
        }
        self.writer = None;
        let path = self.options.dir.join(format!("{:020}.{EXTENSION}", self.next_number));
        let mut file = File::options().append(true).create_new(true).open(&path)?;
        if let Err(error) = file.write_all(&MAGIC) {
            // The first error is the one to return.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        sync_dir(&self.options.dir)?;
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
        // If this fails too, the next process finds a damaged record.
        let _ = writer.set_len(newest.bytes);
        self.dirty_since = None;
        let number = newest.number;
        self.settle(number, 0);
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

/// Creates the directory and opens the file to lock.
fn open_lock_file(dir: &Path) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    File::options().create(true).truncate(false).write(true).open(dir.join("lock"))
}

/// Lists the spool files, oldest first. Other files are ignored.
fn spool_files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_spool_file = path.extension().is_some_and(|extension| extension == EXTENSION);
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (true, Some(number)) = (is_spool_file, number) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Makes the name of a new file durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests;
