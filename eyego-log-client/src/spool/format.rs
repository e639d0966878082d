//! What a file of the spool looks like: pure functions over bytes. Reading and
//! writing files is in `segment`.
//!
//! A file begins with [`MAGIC`]; records follow, one for each batch: a header
//! of [`HEADER_BYTES`], then the lines as they would be posted. The header has
//! a checksum of its own, so that damaged lines cost their record and not the
//! ones behind it. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0-3 | length of the lines |
//! | 4-7 | how many lines |
//! | 8-11 | CRC-32 of the lines |
//! | 12-15 | CRC-32 of the twelve bytes before |

use super::Extent;

/// What a file begins with; its last byte is the version.
pub(super) const MAGIC: [u8; 8] = *b"eyegosp1";

pub(super) const HEADER_BYTES: usize = 16;

/// No batch is larger: what claims to be is damaged.
const MAX_LINES_BYTES: u32 = 64 << 20;

/// What the first bytes of a file say about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Readable,
    /// Written by a later version of this crate.
    Newer,
    Damaged,
}

pub(super) fn kind_of(first: [u8; MAGIC.len()]) -> Kind {
    let version = MAGIC.len() - 1;
    if first[..version] != MAGIC[..version] {
        return Kind::Damaged;
    }
    match first[version].cmp(&MAGIC[version]) {
        std::cmp::Ordering::Equal => Kind::Readable,
        std::cmp::Ordering::Greater if first[version].is_ascii_digit() => Kind::Newer,
        _ => Kind::Damaged,
    }
}

/// What stands before the lines of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) events: u32,
    checksum: u32,
}

impl Header {
    /// `None` for more than a record holds.
    pub(super) fn of(lines: &[u8], events: usize) -> Option<Self> {
        let length = u32::try_from(lines.len()).ok().filter(|length| *length <= MAX_LINES_BYTES)?;
        let events = u32::try_from(events).ok()?;
        Some(Self { length, events, checksum: crc32fast::hash(lines) })
    }

    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.events.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// `None` where it is damaged.
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let header = Self { length: number(0), events: number(4), checksum: number(8) };
        let is_whole = number(12) == crc32fast::hash(&bytes[..12]);
        let makes_sense = header.length <= MAX_LINES_BYTES && header.events <= header.length;
        (is_whole && makes_sense).then_some(header)
    }

    /// What the record holds.
    pub(super) fn extent(self) -> Extent {
        Extent::record(self.events.into())
    }

    /// What the record occupies.
    pub(super) fn record_bytes(self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Whether these are the lines that it was made for.
    pub(super) fn matches(self, lines: &[u8]) -> bool {
        let is_whole = lines.len() == self.length as usize;
        is_whole
            && crc32fast::hash(lines) == self.checksum
            && line_ends(lines) == u64::from(self.events)
    }
}

/// How many events bytes hold that can no longer be read, as far as that can
/// be seen: the ends of lines, and one at least.
pub(super) fn count_lost(line_ends: u64) -> u64 {
    line_ends.max(1)
}

/// The lines that end in these bytes.
pub(super) fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(kind_of(MAGIC), Kind::Readable);
        assert_eq!(kind_of(*b"eyegosp2"), Kind::Newer);
        assert_eq!(kind_of(*b"eyegosp0"), Kind::Damaged);
        assert_eq!(kind_of(*b"\0\0\0\0\0\0\0\0"), Kind::Damaged);
    }

    #[test]
    fn what_was_never_written_is_no_header() {
        // What a file is filled with where the power failed.
        assert_eq!(Header::decode([0; HEADER_BYTES]), None);
        assert_eq!(Header::decode([0xff; HEADER_BYTES]), None);
    }

    proptest! {
        #[test]
        fn a_header_reads_back(lines in prop::collection::vec(any::<u8>(), 0..200)) {
            let header = Header::of(&lines, usize::try_from(line_ends(&lines)).unwrap()).unwrap();
            prop_assert_eq!(Header::decode(header.encode()), Some(header));
            prop_assert!(header.matches(&lines));
        }

        #[test]
        fn damage_is_seen(
            lines in prop::collection::vec(any::<u8>(), 1..200),
            at: prop::sample::Index,
            flip in 1_u8..,
        ) {
            let events = usize::try_from(line_ends(&lines)).unwrap();
            let header = Header::of(&lines, events).unwrap();
            let mut bytes = header.encode();
            bytes[at.index(HEADER_BYTES)] ^= flip;
            prop_assert_eq!(Header::decode(bytes), None);
            let mut damaged = lines.clone();
            damaged[at.index(lines.len())] ^= flip;
            prop_assert!(!header.matches(&damaged));
            prop_assert!(!header.matches(&lines[1..]));
        }
    }
}
