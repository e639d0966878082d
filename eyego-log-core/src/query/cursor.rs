//! The cursor: the place of a row, as opaque text.

use std::fmt;
use std::str::FromStr;

use crate::{LogEntry, LogId, Timestamp};

/// The place of a row in the order by (`timestamp`, `id`): opaque text outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The row's time.
    pub timestamp: Timestamp,
    /// The row's id.
    pub id: LogId,
}

impl From<&LogEntry> for Cursor {
    fn from(entry: &LogEntry) -> Self {
        Self { timestamp: entry.timestamp, id: entry.id }
    }
}

/// The first byte of a cursor, to be changed with its layout.
const CURSOR_VERSION: u8 = 1;

impl Cursor {
    fn payload(&self) -> [u8; 21] {
        let mut payload = [CURSOR_VERSION; 21];
        payload[1..9].copy_from_slice(&self.timestamp.as_millis().to_be_bytes());
        payload[9..].copy_from_slice(self.id.as_bytes());
        payload
    }
}

/// Tells a cursor that was cut or mistyped from a good one (FNV-1a, 16 bits).
fn checksum(payload: &[u8]) -> [u8; 2] {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in payload {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    let [a, b, c, d] = hash.to_be_bytes();
    [a ^ c, b ^ d]
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = self.payload();
        for byte in payload.iter().chain(&checksum(&payload)) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The text is not a cursor that an answer gave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the nextCursor of an earlier answer, unchanged")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 46 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseCursorError);
        }
        let mut bytes = [0; 23];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| ParseCursorError)?;
        }
        let (payload, sum) = bytes.split_at(21);
        if sum != checksum(payload) || payload[0] != CURSOR_VERSION {
            return Err(ParseCursorError);
        }
        let mut millis = [0; 8];
        millis.copy_from_slice(&payload[1..9]);
        let mut id = [0; 12];
        id.copy_from_slice(&payload[9..]);
        let timestamp =
            Timestamp::from_millis(i64::from_be_bytes(millis)).ok_or(ParseCursorError)?;
        Ok(Self { timestamp, id: LogId::from_bytes(id) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_round_trip_and_notice_a_change(
            millis in Timestamp::MIN.as_millis()..=Timestamp::MAX.as_millis(),
            id: [u8; 12],
            place in 0usize..46,
        ) {
            let timestamp = Timestamp::from_millis(millis).unwrap();
            let cursor = Cursor { timestamp, id: LogId::from_bytes(id) };
            let text = cursor.to_string();
            prop_assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
            let mut broken = text.into_bytes();
            broken[place] = if broken[place] == b'0' { b'1' } else { b'0' };
            prop_assert!(String::from_utf8(broken).unwrap().parse::<Cursor>().is_err());
        }

        #[test]
        fn no_cursor_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
