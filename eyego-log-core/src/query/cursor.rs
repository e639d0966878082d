//! The cursor: the position of a row, as opaque text.

use std::fmt;
use std::str::FromStr;

use crate::{LogEntry, LogId, Timestamp};

/// Position of a row in the order by (`timestamp`, `id`). Its text form is
/// opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Timestamp of the row.
    pub timestamp: Timestamp,
    /// Id of the row.
    pub id: LogId,
}

impl From<&LogEntry> for Cursor {
    fn from(entry: &LogEntry) -> Self {
        Self { timestamp: entry.timestamp, id: entry.id }
    }
}

/// First byte of a cursor. Change it when the layout changes.
const VERSION: u8 = 2;

/// Bytes before the checksum: version, timestamp, id.
const PAYLOAD: usize = 1 + 8 + 12;
const CHECKSUM: usize = 4;

impl Cursor {
    fn payload(&self) -> [u8; PAYLOAD] {
        let mut payload = [VERSION; PAYLOAD];
        payload[1..9].copy_from_slice(&self.timestamp.as_millis().to_be_bytes());
        payload[9..].copy_from_slice(self.id.as_bytes());
        payload
    }
}

/// Detects cursors that were truncated or mistyped.
fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    crc32fast::hash(payload).to_be_bytes()
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

/// The error of parsing a [`Cursor`] from text that no response contained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the nextCursor of an earlier response, unchanged")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; PAYLOAD + CHECKSUM];
        if text.len() != 2 * bytes.len()
            || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(ParseCursorError);
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| ParseCursorError)?;
        }
        let (payload, sum) = bytes.split_at(PAYLOAD);
        if sum != checksum(payload) || payload[0] != VERSION {
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
        fn cursors_round_trip_and_detect_a_changed_digit(
            millis in Timestamp::MIN.as_millis()..=Timestamp::MAX.as_millis(),
            id: [u8; 12],
            place in 0..2 * (PAYLOAD + CHECKSUM),
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
        fn no_text_causes_a_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
