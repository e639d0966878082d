//! The on-disk format of a spool file, as pure functions over bytes.
//!
//! A file begins with [`MAGIC`], followed by one record for each batch: a header
//! of [`HEADER_BYTES`], then the lines exactly as they are posted. The header
//! has its own checksum, so damaged lines cost only their own record and not the
//! records after it. Every line ends with a line break and contains no other, so
//! the record after a damaged header can be found again (`repair`). Numbers are
//! little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 0-3 | length of the lines in bytes |
//! | 4-7 | number of lines |
//! | 8-11 | CRC-32 of the lines |
//! | 12-15 | CRC-32 of bytes 0-11 |

use crate::spool::record::Extent;

/// The first bytes of a file. The last one is the version of the format.
pub(super) const MAGIC: [u8; 8] = *b"eyegosp1";

pub(super) const HEADER_BYTES: usize = 16;

/// Maximum size of a batch. A header with a larger size is damaged.
const MAX_LINES_BYTES: u32 = 64 << 20;

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) events: u32,
    checksum: u32,
}

impl Header {
    /// Creates the header of a record. Returns `None` if the lines are too large.
    pub(super) fn for_lines(lines: &[u8], events: usize) -> Option<Self> {
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

    /// Reconstructs a damaged header from its lines. Returns `None` if more than
    /// one of its four fields differs, since these may not be its lines then.
    pub(super) fn reconstruct(damaged: [u8; HEADER_BYTES], lines: &[u8]) -> Option<Self> {
        let events = usize::try_from(count_lines(lines)).ok()?;
        let header = Self::for_lines(lines, events)?;
        let encoded = header.encode();
        let fields = damaged.chunks(4).zip(encoded.chunks(4));
        (fields.filter(|(stored, expected)| stored != expected).count() <= 1).then_some(header)
    }

    /// Returns `None` if the header is damaged.
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let header = Self { length: number(0), events: number(4), checksum: number(8) };
        let has_valid_checksum = number(12) == crc32fast::hash(&bytes[..12]);
        let is_plausible = header.length <= MAX_LINES_BYTES && header.events <= header.length;
        (has_valid_checksum && is_plausible).then_some(header)
    }

    pub(super) fn extent(self) -> Extent {
        Extent::record(self.events.into())
    }

    /// Returns the size of the record with its header.
    pub(super) fn record_bytes(self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Returns whether `lines` are the undamaged lines of this record.
    pub(super) fn matches(self, lines: &[u8]) -> bool {
        lines.len() == self.length as usize
            && crc32fast::hash(lines) == self.checksum
            && count_lines(lines) == u64::from(self.events)
    }
}

/// Counts the line breaks.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unwritten_bytes_are_not_a_header() {
        // After a power failure, a file can contain such bytes.
        assert_eq!(Header::decode([0; HEADER_BYTES]), None);
        assert_eq!(Header::decode([0xff; HEADER_BYTES]), None);
    }

    proptest! {
        #[test]
        fn a_decoded_header_equals_the_encoded_one(lines in prop::collection::vec(any::<u8>(), 0..200)) {
            let header = Header::for_lines(&lines, usize::try_from(count_lines(&lines)).unwrap()).unwrap();
            prop_assert_eq!(Header::decode(header.encode()), Some(header));
            prop_assert!(header.matches(&lines));
        }

        #[test]
        fn damage_is_detected(
            lines in prop::collection::vec(any::<u8>(), 1..200),
            at: prop::sample::Index,
            flip in 1_u8..,
        ) {
            let events = usize::try_from(count_lines(&lines)).unwrap();
            let header = Header::for_lines(&lines, events).unwrap();
            let mut bytes = header.encode();
            bytes[at.index(HEADER_BYTES)] ^= flip;
            prop_assert_eq!(Header::decode(bytes), None);
            prop_assert_eq!(Header::reconstruct(bytes, &lines), Some(header));
            prop_assert_eq!(Header::reconstruct(bytes, &lines[1..]), None);
            let mut damaged = lines.clone();
            damaged[at.index(lines.len())] ^= flip;
            prop_assert!(!header.matches(&damaged));
            prop_assert!(!header.matches(&lines[1..]));
        }
    }
}
