//! One event as a line of NDJSON. The encoder writes it, the spool keeps it,
//! and the request carries it unchanged.

use std::ops::Range;

use eyego_log_core::LogId;

/// How every line begins. The zeros are placeholders for the id and the
/// timestamp, whose positions the ranges below give.
pub(crate) const LINE_HEAD: [u8; 81] =
    *br#"{"id":"000000000000000000000000","timestamp":"0000-00-00T00:00:00.000Z","userId":"#;
pub(crate) const ID: Range<usize> = 7..31;
pub(crate) const TIMESTAMP: Range<usize> = 46..70;
pub(crate) const MILLISECONDS: Range<usize> = 66..69;

/// Returns the id at the head of a line that the encoder wrote.
pub(crate) fn id_of_line(line: &[u8]) -> Option<LogId> {
    std::str::from_utf8(line.get(ID)?).ok()?.parse().ok()
}

/// Consecutive lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where each line ends: the position after its line break.
    pub(crate) ends: &'a [u32],
}

impl<'a> Lines<'a> {
    pub(crate) const EMPTY: Lines<'static> = Lines { bytes: &[], ends: &[] };

    pub(crate) fn get(self, index: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.ends.len()).filter_map(move |index| self.get(index))
    }
}
