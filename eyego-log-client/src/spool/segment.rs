//! One spool file: scanned when the spool is opened, then read record by record.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::spool::format::{
    HEADER_BYTES, Header, Kind, MAGIC, count_lines, estimate_lost, kind_of,
};
use crate::spool::record::{Extent, Unread};

/// The result of scanning a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The length of the readable part.
    pub(super) good_bytes: u64,
    pub(super) found: Extent,
    /// The number of events after that part, as far as it can be determined.
    pub(super) damaged: u64,
}

/// Scans the headers of a file that is `bytes` long. The checksums of the lines
/// are verified later, when they are read. Returns `None` if a later version of
/// this crate wrote the file.
///
/// # Errors
/// Returns the I/O error if the file cannot be read.
pub(super) fn scan(file: impl Read + Seek, bytes: u64) -> io::Result<Option<Scan>> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut scan = Scan::default();
    let mut first = [0; MAGIC.len()];
    if !fill(&mut file, &mut first)? {
        scan.damaged = estimate_lost_in_short_file(&first, bytes);
        return Ok(Some(scan));
    }
    match kind_of(first) {
        Kind::Readable => {}
        Kind::Newer => return Ok(None),
        Kind::Damaged => {
            scan.damaged = estimate_lost(count_remaining_lines(&mut file)?);
            return Ok(Some(scan));
        }
    }
    scan.good_bytes = MAGIC.len() as u64;
    while scan.good_bytes < bytes {
        let mut header = [0; HEADER_BYTES];
        if !fill(&mut file, &mut header)? {
            scan.damaged = estimate_lost(0);
            return Ok(Some(scan));
        }
        let Some(header) = Header::decode(header) else {
            scan.damaged = estimate_lost(count_remaining_lines(&mut file)?);
            return Ok(Some(scan));
        };
        let end = scan.good_bytes + header.record_bytes();
        if end > bytes {
            scan.damaged = estimate_lost(header.events.into());
            return Ok(Some(scan));
        }
        file.seek_relative(header.length.into())?;
        scan.good_bytes = end;
        scan.found.add(header.extent());
    }
    Ok(Some(scan))
}

/// A file that is shorter than [`MAGIC`] was created and never written, unless
/// its bytes differ.
fn estimate_lost_in_short_file(first: &[u8], bytes: u64) -> u64 {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(first.len());
    if MAGIC.starts_with(&first[..bytes]) { 0 } else { estimate_lost(0) }
}

/// Fills the buffer. Returns `false` if the file ends first.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn count_remaining_lines(file: &mut impl Read) -> io::Result<u64> {
    let mut lines = 0;
    let mut buffer = [0; 8192];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += count_lines(&buffer[..read]),
        }
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
    pub(super) events: u64,
    /// The number of events that are delivered or lost.
    pub(super) settled: u64,
    pub(super) unread: Extent,
    /// The position of the next unread record.
    read_at: u64,
    reader: Option<File>,
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
            events: 0,
            settled: 0,
            unread: Extent::default(),
            read_at: bytes,
            reader: None,
        }
    }

    /// Creates the segment of a file that an earlier process left.
    pub(super) fn recovered(number: u64, path: PathBuf, file_bytes: u64, scan: &Scan) -> Self {
        let Scan { good_bytes: bytes, found, .. } = *scan;
        let empty = Self::empty(number, path);
        Self { bytes, file_bytes, events: found.events, unread: found, ..empty }
    }

    /// Accounts for an appended record. A record that is held in memory will not
    /// be read.
    pub(super) fn append(&mut self, header: Header, is_held: bool) {
        self.bytes += header.record_bytes();
        self.file_bytes = self.bytes;
        self.events += u64::from(header.events);
        if is_held {
            self.read_at = self.bytes;
        } else {
            self.unread.add(header.extent());
        }
    }

    /// Returns whether all events are settled, so that the file can be deleted.
    pub(super) fn is_done(&self) -> bool {
        self.unread.records == 0 && self.settled >= self.events
    }

    /// Reads the next unread record.
    pub(super) fn read(&mut self) -> Unread {
        let segment = self.number;
        match self.try_read() {
            Ok((header, lines)) if header.matches(&lines) => Unread::Lines { segment, lines },
            Ok((header, _)) => {
                let lost = header.extent();
                let message = format!("a record in {} is damaged", self.path.display());
                Unread::Lost { segment, lost, message }
            }
            Err(error) => {
                let lost = std::mem::take(&mut self.unread);
                let message = format!("{} cannot be read: {error}", self.path.display());
                Unread::Lost { segment, lost, message }
            }
        }
    }

    fn try_read(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(File::open(&self.path)?),
        };
        reader.seek(SeekFrom::Start(self.read_at))?;
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a record header is damaged");
        let header = Header::decode(header).ok_or_else(damaged)?;
        let mut lines = vec![0; header.length as usize];
        reader.read_exact(&mut lines)?;
        self.read_at += header.record_bytes();
        self.unread.remove(header.extent());
        if self.unread.records == 0 {
            self.reader = None;
        }
        Ok((header, lines))
    }

    /// Resets the segment after its file was truncated.
    pub(super) fn reset(&mut self) {
        let path = std::mem::take(&mut self.path);
        *self = Self::empty(self.number, path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        for lines in records {
            let events = usize::try_from(count_lines(lines)).unwrap();
            file.extend_from_slice(&Header::for_lines(lines, events).unwrap().encode());
            file.extend_from_slice(lines);
        }
        file
    }

    fn scan_of(bytes: &[u8]) -> Scan {
        scan(Cursor::new(bytes), bytes.len() as u64).unwrap().unwrap()
    }

    fn any_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let record = prop::collection::vec("[a-z]{0,20}", 1..6).prop_map(|lines| {
            lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
        });
        prop::collection::vec(record, 0..8)
    }

    #[test]
    fn a_file_of_a_later_version_is_not_scanned() {
        assert_eq!(scan(Cursor::new(b"eyegosp9...".to_vec()), 11).unwrap(), None);
    }

    #[test]
    fn a_newly_created_file_has_lost_nothing() {
        assert_eq!(scan_of(b"").damaged, 0);
        assert_eq!(scan_of(b"eyego").damaged, 0);
        assert_eq!(scan_of(&MAGIC), Scan { good_bytes: 8, ..Scan::default() });
        assert_eq!(scan_of(b"other").damaged, 1);
        assert_eq!(scan_of(b"other things\nare here\nnow\n").damaged, 3);
    }

    proptest! {
        #[test]
        fn every_record_is_found(records in any_records()) {
            let events = records.iter().map(|lines| count_lines(lines)).sum();
            let bytes = file(&records);
            let found = Extent { records: records.len() as u64, events };
            prop_assert_eq!(scan_of(&bytes), Scan { good_bytes: bytes.len() as u64, found, damaged: 0 });
        }

        /// A tail that is cut off or filled with zeros damages only the records
        /// that it contains, and every loss is detected.
        #[test]
        fn a_damaged_tail_is_detected_and_costs_only_its_records(records in any_records(), cut: prop::sample::Index, zeros: bool) {
            let whole = file(&records);
            let cut = MAGIC.len() + cut.index(whole.len() - MAGIC.len() + 1);
            let mut bytes = whole[..cut].to_vec();
            if zeros {
                bytes.resize(whole.len(), 0);
            }
            let scan = scan_of(&bytes);
            let mut end = MAGIC.len();
            let before_cut = records.iter().take_while(|lines| {
                end += HEADER_BYTES + lines.len();
                end <= cut
            });
            let untouched = before_cut.count() as u64;
            prop_assert!(scan.found.records >= untouched);
            let is_cut = bytes.len() > usize::try_from(scan.good_bytes).unwrap();
            prop_assert_eq!(is_cut, scan.damaged > 0);
        }
    }
}
