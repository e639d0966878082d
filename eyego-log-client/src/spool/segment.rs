//! One spool file: scanned when the spool is opened, then read record by record.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::model::os_error::is_shortage;
use crate::spool::format::{HEADER_BYTES, Header, MAGIC, count_lines};
use crate::spool::record::Extent;
use crate::spool::repair::resync;

/// Scans the headers of a file that is `bytes` long. The checksums of the lines
/// are verified later, when they are read. Returns `None` if the file is not
/// intact.
///
/// # Errors
/// Returns the I/O error if the file cannot be read.
pub(super) fn scan(file: impl Read + Seek, bytes: u64) -> io::Result<Option<Extent>> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut found = Extent::default();
    let mut first = [0; MAGIC.len()];
    if !fill(&mut file, &mut first)? || first != MAGIC {
        return Ok(None);
    }
    let mut at = MAGIC.len() as u64;
    while at < bytes {
        let mut header = [0; HEADER_BYTES];
        if !fill(&mut file, &mut header)? {
            return Ok(None);
        }
        let Some(header) = Header::decode(header) else { return Ok(None) };
        at += header.record_bytes();
        if at > bytes {
            return Ok(None);
        }
        file.seek_relative(header.length.into())?;
        found.add(header.extent());
    }
    Ok(Some(found))
}

/// Fills the buffer. Returns `false` if the file ends first.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// An open spool file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// The length of the readable part.
    pub(super) bytes: u64,
    /// The length of the file.
    pub(super) file_bytes: u64,
    /// The number of events that the caller holds in memory, until they are
    /// settled. It does not depend on what a damaged file says.
    outstanding: u64,
    pub(super) unread: Extent,
    /// Whether records are lost because the file could not be read.
    pub(super) is_unreadable: bool,
    /// When the last record was written.
    pub(super) written_at: SystemTime,
    /// The position of the next unread record.
    read_at: u64,
    reader: Option<File>,
}

/// An attempt to read a record.
#[derive(Debug)]
pub(super) enum Record {
    Lines(Vec<u8>),
    /// The record is damaged; `bytes` is what the file contains in its place.
    Damaged {
        lost: Extent,
        bytes: Vec<u8>,
    },
    /// All remaining records cannot be read.
    Failed {
        lost: Extent,
        error: io::Error,
    },
    /// The record cannot be read at present.
    Unavailable(io::Error),
}

impl Segment {
    /// Creates a segment without records.
    pub(super) fn empty(number: u64, path: PathBuf) -> Self {
        let bytes = MAGIC.len() as u64;
        Self {
            number,
            path,
            bytes,
            file_bytes: bytes,
            outstanding: 0,
            unread: Extent::default(),
            is_unreadable: false,
            written_at: SystemTime::now(),
            read_at: bytes,
            reader: None,
        }
    }

    /// Creates the segment of an intact file that an earlier process left.
    pub(super) fn recovered(
        number: u64,
        path: PathBuf,
        bytes: u64,
        found: Extent,
        written_at: SystemTime,
    ) -> Self {
        let empty = Self::empty(number, path);
        Self { bytes, file_bytes: bytes, unread: found, written_at, ..empty }
    }

    /// Accounts for an appended record. A record that is held in memory will not
    /// be read; there must be no unread record before it.
    pub(super) fn append(&mut self, header: Header, is_held: bool) {
        self.bytes += header.record_bytes();
        self.file_bytes = self.bytes;
        self.written_at = SystemTime::now();
        if is_held {
            self.outstanding += u64::from(header.events);
            self.read_at = self.bytes;
        } else {
            self.unread.add(header.extent());
        }
    }

    /// Accounts for events that are delivered or lost after they were held or
    /// read.
    pub(super) fn settle(&mut self, events: u64) {
        self.outstanding = self.outstanding.saturating_sub(events);
    }

    /// Returns whether all events are settled, so that the file can be deleted.
    pub(super) fn is_done(&self) -> bool {
        self.unread.records == 0 && self.outstanding == 0
    }

    /// Reads the next unread record.
    pub(super) fn read(&mut self) -> Record {
        let record = match self.try_read() {
            Ok(record) => record,
            Err(error) if is_shortage(&error) => Record::Unavailable(error),
            Err(error) => {
                self.is_unreadable = true;
                Record::Failed { lost: self.skip_unread(), error }
            }
        };
        if self.unread.records == 0 {
            self.reader = None;
        }
        record
    }

    /// Gives up all unread records.
    pub(super) fn skip_unread(&mut self) -> Extent {
        self.read_at = self.bytes;
        self.reader = None;
        std::mem::take(&mut self.unread)
    }

    fn try_read(&mut self) -> io::Result<Record> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => File::open(&self.path)?,
        };
        reader.seek(SeekFrom::Start(self.read_at))?;
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header)?;
        let (lines, is_intact, events) = match Header::decode(header) {
            Some(header) => {
                let mut lines = vec![0; header.length as usize];
                reader.read_exact(&mut lines)?;
                let is_intact = header.matches(&lines);
                // The line breaks of damaged lines do not tell the number of events.
                (lines, is_intact, header.events.into())
            }
            None => {
                // The file has been intact when it was opened or written.
                let mut rest = Vec::new();
                let left = self.bytes.saturating_sub(self.read_at + HEADER_BYTES as u64);
                (&mut reader).take(left).read_to_end(&mut rest)?;
                let (lines, is_intact) = resync(header, &rest);
                (lines.to_vec(), is_intact, count_lines(lines).max(1))
            }
        };
        self.read_at += (HEADER_BYTES + lines.len()) as u64;
        self.reader = Some(reader);
        let extent = Extent::record(events);
        if is_intact {
            self.unread.remove(extent);
            self.outstanding += events;
            return Ok(Record::Lines(lines));
        }
        Ok(Record::Damaged { lost: self.lose(extent), bytes: lines })
    }

    /// Removes a damaged record from the unread ones. The last one takes with it
    /// what is left, because the number of events may be an estimate.
    fn lose(&mut self, estimate: Extent) -> Extent {
        let before = self.unread;
        self.unread.remove(estimate);
        if self.unread.records == 0 || self.read_at >= self.bytes {
            self.unread = Extent::default();
        }
        before.without(self.unread)
    }

    /// Resets the segment after its file was truncated.
    pub(super) fn reset(&mut self) {
        let path = std::mem::take(&mut self.path);
        *self = Self::empty(self.number, path);
    }
}
