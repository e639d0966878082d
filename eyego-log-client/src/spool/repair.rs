//! Reads a file that is not intact, as a pure function over its bytes.
//!
//! - A damaged header is reconstructed from its lines, if only one of its fields
//!   is wrong. Otherwise the record is skipped: the next header follows one of
//!   the next line breaks.
//! - A record that ends with the file was being written when the process or the
//!   machine stopped. Its complete lines are intact.

use crate::model::line::id_of_line;
use crate::spool::format::{HEADER_BYTES, Header, MAGIC, count_lines};

/// What a file contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents<'a> {
    /// The lines of each record, in order.
    pub(super) records: Vec<&'a [u8]>,
    /// The number of events that cannot be read, as far as it can be determined.
    pub(super) damaged: u64,
    /// The number of events that were not completely written.
    pub(super) interrupted: u64,
    /// Whether the file must be replaced, because something before an incomplete
    /// record cannot be read in place.
    pub(super) needs_copy: bool,
    /// The length of the part before an incomplete record.
    pub(super) complete_bytes: usize,
    /// The complete lines of an incomplete record.
    pub(super) torn_lines: &'a [u8],
}

/// Reads all records of a file.
pub(super) fn contents(bytes: &[u8]) -> Contents<'_> {
    let mut contents = Contents { complete_bytes: bytes.len(), ..Contents::default() };
    let Some(first) = bytes.get(..MAGIC.len()) else {
        // The file was created and not yet written, unless its bytes differ.
        contents.damaged = u64::from(!MAGIC.starts_with(bytes));
        contents.needs_copy = true;
        return contents;
    };
    contents.needs_copy = *first != MAGIC;
    let mut at = MAGIC.len();
    while at < contents.complete_bytes {
        let rest = &bytes[at..];
        match rest.split_first_chunk::<HEADER_BYTES>() {
            // The rest was never written. A file system may have allocated it.
            None => contents.tear(at, &[], 1),
            Some(_) if is_zero(rest) => contents.tear(at, &[], 1),
            Some((head, body)) => {
                let lines = match Header::decode(*head) {
                    Some(header) => contents.add(at, header, body),
                    None => contents.add_without_header(*head, body),
                };
                at += HEADER_BYTES + lines.len();
            }
        }
    }
    if contents.records.is_empty() && *first != MAGIC {
        // These may be any bytes.
        contents.damaged = count_lines(bytes).max(1);
        contents.interrupted = 0;
    }
    contents
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl<'a> Contents<'a> {
    /// Adds the record at `at` with an intact header. Returns its lines.
    fn add(&mut self, at: usize, header: Header, body: &'a [u8]) -> &'a [u8] {
        let events = u64::from(header.events);
        let Some((lines, after)) = body.split_at_checked(header.length as usize) else {
            self.tear(at, complete_lines(body), events);
            return body;
        };
        if header.matches(lines) {
            self.records.push(lines);
        } else if lines.ends_with(&[0]) && is_zero(after) {
            self.tear(at, complete_lines(lines), events);
        } else {
            self.damaged += events.max(1);
            self.needs_copy = true;
        }
        lines
    }

    /// Adds a record with a damaged header. Returns what lies before the next
    /// one.
    fn add_without_header(&mut self, head: [u8; HEADER_BYTES], body: &'a [u8]) -> &'a [u8] {
        let (lines, is_intact) = resync(head, body);
        if is_intact {
            self.records.push(lines);
        } else {
            self.damaged += count_lines(lines).max(1);
        }
        self.needs_copy = true;
        lines
    }

    /// Accounts for a record of `events` events that ends with the file.
    fn tear(&mut self, at: usize, lines: &'a [u8], events: u64) {
        self.complete_bytes = at;
        self.torn_lines = lines;
        self.interrupted = events.saturating_sub(count_lines(lines));
    }
}

/// Returns what lies between a damaged header and the next header in `body`, and
/// whether these are known to be the intact lines of the damaged header.
pub(super) fn resync(damaged: [u8; HEADER_BYTES], body: &[u8]) -> (&[u8], bool) {
    let is_header = |at: &usize| {
        let header = body.get(*at..).and_then(|rest| rest.first_chunk());
        header.is_some_and(|header| Header::decode(*header).is_some())
    };
    let after_breaks = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut starts = std::iter::once(0).chain(after_breaks.map(|(at, _)| at + 1));
    let lines = &body[..starts.find(is_header).unwrap_or(body.len())];
    (lines, Header::reconstruct(damaged, lines).is_some())
}

/// Returns the lines at the beginning that are complete events.
fn complete_lines(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_event = line.ends_with(b"\n")
            && id_of_line(line).is_some()
            && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
        if !is_event {
            break;
        }
        end += line.len();
    }
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(n: usize) -> Vec<u8> {
        format!(r#"{{"id":"{n:024x}","timestamp":"2026-01-14T23:58:05.000Z","userId":"{n}"}}"#)
            .into_bytes()
            .into_iter()
            .chain(*b"\n")
            .collect()
    }

    /// Creates a file with records of these numbers of events.
    fn file(events: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut next = 0..;
        let records: Vec<Vec<u8>> = events
            .iter()
            .map(|events| next.by_ref().take(*events).flat_map(line).collect())
            .collect();
        let mut bytes = MAGIC.to_vec();
        for (lines, events) in records.iter().zip(events) {
            bytes.extend_from_slice(&Header::for_lines(lines, *events).unwrap().encode());
            bytes.extend_from_slice(lines);
        }
        (bytes, records)
    }

    #[test]
    fn a_new_file_has_no_lost_events() {
        for bytes in [&b""[..], b"eyego", &MAGIC] {
            let contents = contents(bytes);
            assert_eq!((contents.records.len(), contents.damaged, contents.interrupted), (0, 0, 0));
        }
        assert_eq!(contents(b"other").damaged, 1);
        assert_eq!(contents(b"other things\nare here\nnow\n").damaged, 3);
    }

    #[test]
    fn damaged_lines_do_not_get_a_new_checksum() {
        let (mut bytes, records) = file(&[2, 3, 1]);
        let at = MAGIC.len() + HEADER_BYTES + 30;
        bytes[at] ^= 1;
        bytes[0] ^= 1;
        let contents = contents(&bytes);
        assert_eq!(contents.records, [&records[1][..], &records[2]]);
        assert_eq!(contents.damaged, 2);
    }

    #[test]
    fn records_between_two_damaged_headers_are_found() {
        let (mut bytes, records) = file(&[2, 3, 1, 2]);
        // Two fields of the second header.
        let at = MAGIC.len() + HEADER_BYTES + records[0].len();
        bytes[at] ^= 1;
        bytes[at + 8] ^= 1;
        let contents = contents(&bytes);
        assert_eq!(contents.records, [&records[0][..], &records[2], &records[3]]);
        assert_eq!((contents.damaged, contents.interrupted), (3, 0));
        assert!(contents.needs_copy);
    }

    proptest! {
        /// A flipped bit outside of the lines costs nothing.
        #[test]
        fn a_flipped_bit_in_a_header_loses_no_event(
            events in prop::collection::vec(1_usize..4, 1..6),
            at: prop::sample::Index,
            bit in 0_u8..8,
        ) {
            let (mut bytes, records) = file(&events);
            let mut ends: Vec<usize> = vec![MAGIC.len()];
            for lines in &records {
                ends.push(ends.last().unwrap() + HEADER_BYTES + lines.len());
            }
            let heads = ends[..records.len()].iter().flat_map(|at| *at..*at + HEADER_BYTES);
            let positions: Vec<usize> = (0..MAGIC.len()).chain(heads).collect();
            bytes[positions[at.index(positions.len())]] ^= 1 << bit;
            let contents = contents(&bytes);
            prop_assert_eq!(&contents.records, &records.iter().map(|lines| &lines[..]).collect::<Vec<_>>());
            prop_assert_eq!((contents.damaged, contents.interrupted), (0, 0));
            prop_assert!(contents.needs_copy);
        }

        /// A file that ends early, or whose end was never written, has lost only
        /// the lines after that point, and it is not damaged.
        #[test]
        fn an_interrupted_write_is_not_damage(
            events in prop::collection::vec(1_usize..4, 1..6),
            cut: prop::sample::Index,
            zeros: bool,
        ) {
            let (whole, records) = file(&events);
            let cut = MAGIC.len() + cut.index(whole.len() - MAGIC.len());
            let mut bytes = whole[..cut].to_vec();
            if zeros {
                bytes.resize(whole.len() + 1, 0);
            }
            let contents = contents(&bytes);
            if !zeros {
                prop_assert_eq!(contents.damaged, 0);
                prop_assert!(!contents.needs_copy);
            }
            let read: Vec<u8> = contents.records.concat().into_iter().chain(contents.torn_lines.iter().copied()).collect();
            let all = records.concat();
            prop_assert!(all.starts_with(&read));
            let mut complete = 0;
            let mut at = MAGIC.len();
            for lines in &records {
                at += HEADER_BYTES + lines.len();
                complete += if at <= cut { lines.len() } else { 0 };
            }
            prop_assert!(read.len() >= complete);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), with_magic: bool) {
            let bytes = if with_magic { [&MAGIC[..], &bytes].concat() } else { bytes };
            let contents = contents(&bytes);
            prop_assert!(contents.complete_bytes <= bytes.len());
        }
    }
}
