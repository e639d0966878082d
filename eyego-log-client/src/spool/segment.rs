//! One file of the spool: looked through, read record by record, deleted. How
//! its bytes are to be understood is in `format`; which file is when written
//! is decided in the parent.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::format::{HEADER_BYTES, Header, Kind, MAGIC, count_lost, kind_of, line_ends};
use super::{Extent, Unread};

/// What a look through a file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Up to here its records follow one another.
    pub(super) good_bytes: u64,
    pub(super) found: Extent,
    /// Events behind that, as far as they can be counted.
    pub(super) damaged: u64,
}

/// Looks through a file of this length; the lines themselves are not checked
/// before they are read. `None` if a later version wrote it.
///
/// # Errors
/// It cannot be read.
pub(super) fn scan(file: impl Read + Seek, bytes: u64) -> io::Result<Option<Scan>> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut scan = Scan::default();
    let mut first = [0; MAGIC.len()];
    if !fill(&mut file, &mut first)? {
        // The file was made, and nothing written to it yet.
        scan.damaged = count_torn(&first, bytes);
        return Ok(Some(scan));
    }
    match kind_of(first) {
        Kind::Readable => {}
        Kind::Newer => return Ok(None),
        Kind::Damaged => {
            scan.damaged = count_lost(rest_of(&mut file)?);
            return Ok(Some(scan));
        }
    }
    scan.good_bytes = MAGIC.len() as u64;
    while scan.good_bytes < bytes {
        let mut header = [0; HEADER_BYTES];
        if !fill(&mut file, &mut header)? {
            scan.damaged = count_lost(0);
            return Ok(Some(scan));
        }
        let Some(header) = Header::decode(header) else {
            scan.damaged = count_lost(rest_of(&mut file)?);
            return Ok(Some(scan));
        };
        let end = scan.good_bytes + header.record_bytes();
        if end > bytes {
            scan.damaged = count_lost(header.events.into());
            return Ok(Some(scan));
        }
        file.seek_relative(header.length.into())?;
        scan.good_bytes = end;
        scan.found.add(header.extent());
    }
    Ok(Some(scan))
}

/// A file shorter than its beginning holds nothing, unless it is none of ours.
fn count_torn(first: &[u8], bytes: u64) -> u64 {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(first.len());
    if MAGIC.starts_with(&first[..bytes]) { 0 } else { count_lost(0) }
}

/// Fills the buffer; `false` where the file ends before that.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The ends of lines from here to the end of the file.
fn rest_of(file: &mut impl Read) -> io::Result<u64> {
    let mut ends = 0;
    let mut buffer = [0; 8192];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(ends),
            read => ends += line_ends(&buffer[..read]),
        }
    }
}

/// A file of the spool, as it is used.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// What of it is whole; behind that nothing is read.
    pub(super) bytes: u64,
    /// What it occupies.
    pub(super) file_bytes: u64,
    pub(super) events: u64,
    /// Events of it that are delivered or lost.
    pub(super) settled: u64,
    pub(super) unread: Extent,
    /// Where the next record begins that is to be read.
    read_at: u64,
    reader: Option<File>,
}

impl Segment {
    /// A file that holds nothing yet but its beginning.
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

    /// A file that an earlier process left.
    pub(super) fn found(number: u64, path: PathBuf, file_bytes: u64, scan: &Scan) -> Self {
        let Scan { good_bytes: bytes, found, .. } = *scan;
        let empty = Self::empty(number, path);
        Self { bytes, file_bytes, events: found.events, unread: found, ..empty }
    }

    /// A record was added; one that is still in memory is not to be read.
    pub(super) fn grow(&mut self, header: Header, is_held: bool) {
        self.bytes += header.record_bytes();
        self.file_bytes = self.bytes;
        self.events += u64::from(header.events);
        if is_held {
            self.read_at = self.bytes;
        } else {
            self.unread.add(header.extent());
        }
    }

    /// Whether nobody needs it any more.
    pub(super) fn is_done(&self) -> bool {
        self.unread.records == 0 && self.settled >= self.events
    }

    /// The next record that is to be read.
    pub(super) fn read(&mut self) -> Unread {
        let segment = self.number;
        match self.try_read() {
            Ok((header, lines)) if header.matches(&lines) => Unread::Lines { segment, lines },
            Ok((header, _)) => {
                let lost = header.extent();
                let message = format!("a record of {} is damaged", self.path.display());
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
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the head of a record is damaged");
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

    /// Begins anew: all of it is done with.
    pub(super) fn clear(&mut self) {
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
            let events = usize::try_from(line_ends(lines)).unwrap();
            file.extend_from_slice(&Header::of(lines, events).unwrap().encode());
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
    fn a_file_of_a_later_version_is_not_touched() {
        assert_eq!(scan(Cursor::new(b"eyegosp9...".to_vec()), 11).unwrap(), None);
    }

    #[test]
    fn a_file_that_was_only_just_made_has_lost_nothing() {
        assert_eq!(scan_of(b"").damaged, 0);
        assert_eq!(scan_of(b"eyego").damaged, 0);
        assert_eq!(scan_of(&MAGIC), Scan { good_bytes: 8, ..Scan::default() });
        assert_eq!(scan_of(b"other").damaged, 1);
        assert_eq!(scan_of(b"other things\nare here\nnow\n").damaged, 3);
    }

    proptest! {
        #[test]
        fn every_record_is_found(records in any_records()) {
            let events = records.iter().map(|lines| line_ends(lines)).sum();
            let bytes = file(&records);
            let found = Extent { records: records.len() as u64, events };
            prop_assert_eq!(scan_of(&bytes), Scan { good_bytes: bytes.len() as u64, found, damaged: 0 });
        }

        /// A tail that is cut off, or filled with zeros, costs no more than
        /// the records that it touches, and no loss goes unseen.
        #[test]
        fn a_bad_tail_costs_the_tail(records in any_records(), cut: prop::sample::Index, zeros: bool) {
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
