//! The directory of the spool: its lock, its files in their order, how much
//! they may hold, when they are synced.
//!
//! Records are appended to the newest file until it is large enough for the
//! next to begin. A file goes when all of its events are settled; the newest
//! is then emptied and used on. Nothing in here is older than its file's
//! name says, so that the order of the names is the order of the events.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::format::{HEADER_BYTES, Header, MAGIC};
use super::segment::{Segment, scan};
use super::{Recovered, Unread};
use crate::config::SpoolSync;
use crate::error::ConfigError;

/// A file is not written on from this many bytes.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Or from this share of what the spool may hold, if that is less.
const SEGMENTS: u64 = 8;

/// What the names of its files end with.
const EXTENSION: &str = "spool";

#[derive(Debug, Clone)]
pub(crate) struct SpoolOptions {
    pub(crate) dir: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) sync: SpoolSync,
}

#[derive(Debug)]
pub(crate) struct Spool {
    options: SpoolOptions,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The newest of them, if it is written on.
    writer: Option<File>,
    next_number: u64,
    /// What the files occupy.
    bytes: u64,
    /// Since when something is written that is not synced.
    dirty_since: Option<Instant>,
    /// The kernel frees it with the last handle, however the process ends.
    _lock: File,
}

impl Spool {
    /// Takes the directory for this client, and finds what an earlier one
    /// left there.
    ///
    /// # Errors
    /// It cannot be made, written or read; another client has it; a later
    /// version of this crate wrote into it.
    pub(crate) fn open(options: SpoolOptions) -> Result<(Self, Recovered), ConfigError> {
        let dir = options.dir.clone();
        let fault =
            |fault: String| ConfigError::new("spool_dir", format!("{} {fault}", dir.display()));
        let unusable = |error: io::Error| fault(format!("cannot be used: {error}"));
        let lock = take_dir(&dir).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "is in use by another client, here or in another process: \
                           give each a directory of its own";
                return Err(fault(why.to_owned()));
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
        for (number, path) in numbered_files(&dir).map_err(unusable)? {
            let file = File::open(&path).map_err(unusable)?;
            let bytes = file.metadata().map_err(unusable)?.len();
            let Some(scan) = scan(file, bytes).map_err(unusable)? else {
                return Err(fault(format!("was written by a later version: {}", path.display())));
            };
            if scan.damaged > 0 {
                recovered.damaged += scan.damaged;
                let at = scan.good_bytes;
                recovered.message = format!("{} is damaged from byte {at} on", path.display());
            }
            recovered.found.add(scan.found);
            spool.next_number = number + 1;
            if scan.found.events == 0 {
                fs::remove_file(&path).map_err(unusable)?;
            } else {
                spool.bytes += bytes;
                spool.segments.push_back(Segment::found(number, path, bytes, &scan));
            }
        }
        // Whoever cannot write here is told at once.
        spool.begin_segment().map_err(unusable)?;
        Ok((spool, recovered))
    }

    /// What the files occupy.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether lines of this length fit.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        let needed = (MAGIC.len() + HEADER_BYTES + length) as u64;
        self.bytes + needed <= self.options.max_bytes
    }

    /// Whether there is something to be read.
    pub(crate) fn has_unread(&self) -> bool {
        self.segments.iter().any(|segment| segment.unread.records > 0)
    }

    /// Writes a record, and answers which file has it. One that `is_held` in
    /// memory is not read back by this process; then none may be unread.
    ///
    /// # Errors
    /// It could not be written, or not synced; then it is not there.
    pub(crate) fn append(
        &mut self,
        lines: &[u8],
        events: usize,
        is_held: bool,
        now: Instant,
    ) -> io::Result<u64> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "the batch is too large");
        let header = Header::of(lines, events).ok_or_else(too_large)?;
        let segment_bytes = SEGMENT_BYTES.min(self.options.max_bytes / SEGMENTS);
        let is_full = self.segments.back().is_none_or(|newest| newest.bytes >= segment_bytes);
        if self.writer.is_none() || is_full {
            self.begin_segment()?;
        }
        if let Err(error) = self.write(header, lines) {
            self.give_up_segment();
            return Err(error);
        }
        let Some(newest) = self.segments.back_mut() else { return Err(too_large()) };
        newest.grow(header, is_held);
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

    /// The next record that is to be read; `None` if there is none.
    pub(crate) fn read(&mut self) -> Option<Unread> {
        let has_unread = |segment: &Segment| segment.unread.records > 0;
        let index = self.segments.iter().position(has_unread)?;
        let read = self.segments[index].read();
        if matches!(read, Unread::Lost { .. }) && index + 1 == self.segments.len() {
            // Something is wrong with this file: no more is entrusted to it.
            self.writer = None;
        }
        Some(read)
    }

    /// Events of this file are delivered or lost.
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
                segment.clear();
                self.bytes -= bytes - segment.file_bytes;
                self.dirty_since = None;
                return;
            }
            self.writer = None;
        }
        // A file that cannot be deleted is sent once more by the next process,
        // under the same ids.
        let _ = fs::remove_file(&segment.path);
        self.bytes -= bytes;
        self.segments.remove(index);
    }

    /// When what is written is to be synced.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        match self.options.sync {
            SpoolSync::EachBatch => None,
            SpoolSync::Every(interval) => self.dirty_since.map(|since| since + interval),
        }
    }

    /// Syncs what is written, if its time has come.
    ///
    /// # Errors
    /// The disk did not take it.
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

    /// Makes the next file, which is then the newest.
    fn begin_segment(&mut self) -> io::Result<()> {
        if self.dirty_since.is_some() {
            self.sync()?;
        }
        self.writer = None;
        let path = self.options.dir.join(format!("{:020}.{EXTENSION}", self.next_number));
        let mut file = File::options().append(true).create_new(true).open(&path)?;
        if let Err(error) = file.write_all(&MAGIC) {
            // The error that is told is the first one.
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

    /// The newest file could not be written: what it has is kept, what it may
    /// have of the failed record is cut off, and it is not written on.
    fn give_up_segment(&mut self) {
        let (Some(writer), Some(newest)) = (self.writer.take(), self.segments.back()) else {
            return;
        };
        // Where even that fails the next process finds a damaged record.
        let _ = writer.set_len(newest.bytes);
        self.dirty_since = None;
        let number = newest.number;
        self.settle(number, 0);
    }
}

impl Drop for Spool {
    /// Leaves no file without an event, and what is left synced.
    fn drop(&mut self) {
        let _ = self.sync();
        self.writer = None;
        for segment in self.segments.iter().filter(|segment| segment.is_done()) {
            let _ = fs::remove_file(&segment.path);
        }
    }
}

/// Makes the directory, and the file that is locked.
fn take_dir(dir: &Path) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    File::options().create(true).truncate(false).write(true).open(dir.join("lock"))
}

/// The files of the spool, oldest first; others are left alone.
fn numbered_files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|extension| extension == EXTENSION);
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (true, Some(number)) = (is_ours, number) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// A file is as durable as its name.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
