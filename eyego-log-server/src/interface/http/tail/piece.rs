//! Writes server-sent events.

use std::io;

use bytes::Bytes;
use eyego_log_core::LogEntry;

use crate::domain::tail::TailedEvent;

/// How much longer a message is than its event and token, in bytes.
pub(super) const MESSAGE_OVERHEAD: usize = 24;

/// A part of the stream that consists of whole messages.
#[derive(Debug, Default)]
pub(super) struct Piece(Vec<u8>);

/// Bytes, and what is released once they are written.
struct Held<H> {
    bytes: Vec<u8>,
    _until_written: H,
}

impl<H> AsRef<[u8]> for Held<H> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Piece {
    /// Returns an empty piece with memory for this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Returns a comment, which clients ignore.
    pub(super) fn comment() -> Self {
        Self(b": nothing new\n\n".to_vec())
    }

    /// Adds an event of the backlog, which has no id.
    pub(super) fn push_entry(&mut self, entry: &LogEntry) -> io::Result<()> {
        self.push(None, entry)
    }

    /// Adds an event. Its first tail encodes it for all (ADR 0044).
    pub(super) fn push_event(&mut self, event: &TailedEvent) -> io::Result<()> {
        if let Some(encoded) = event.encoded.get() {
            self.0.extend_from_slice(encoded);
            return Ok(());
        }
        let start = self.0.len();
        self.push(Some(&event.token), &event.entry)?;
        event.encoded.get_or_init(|| self.0[start..].into());
        Ok(())
    }

    fn push(&mut self, token: Option<&str>, entry: &LogEntry) -> io::Result<()> {
        self.0.extend_from_slice(b"event: log\n");
        if let Some(token) = token {
            self.push_line("id", token);
        }
        self.0.extend_from_slice(b"data: ");
        let start = self.0.len();
        serde_json::to_writer(&mut self.0, entry)?;
        // Metadata keeps the line breaks between its tokens.
        for byte in &mut self.0[start..] {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.0.extend_from_slice(b"\n\n");
        Ok(())
    }

    /// Adds the number of events that were missed.
    pub(super) fn push_skipped(&mut self, count: u64) {
        self.push_line("event", "skipped");
        self.push_line("data", &format!("{{\"count\":{count}}}"));
        self.0.push(b'\n');
    }

    /// Adds a message that only sets the id from which the client resumes.
    pub(super) fn with_position(mut self, token: &str) -> Self {
        self.push_line("id", token);
        self.0.push(b'\n');
        self
    }

    fn push_line(&mut self, field: &str, value: &str) {
        for part in [field, ": ", value, "\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// Returns the bytes. `until_written` is dropped once they have been written.
    pub(super) fn into_bytes<H: Send + Sync + 'static>(self, until_written: H) -> Bytes {
        Bytes::from_owner(Held { bytes: self.0, _until_written: until_written })
    }
}

#[cfg(test)]
mod tests {
    use eyego_log_core::{Action, LogId, Metadata, Timestamp, UserId};

    use super::*;

    #[test]
    fn messages_are_whole_lines_whatever_the_metadata() {
        let entry = LogEntry::new(
            LogId::from_bytes([1; 12]),
            UserId::new("a\nb\r").unwrap(),
            Action::new("A").unwrap(),
            Timestamp::from_millis(0).unwrap(),
            Metadata::from_json("{\"a\":\r\n \"x\\ny\"}".to_owned()).unwrap(),
        );
        let mut piece = Piece::default();
        piece.push_skipped(12);
        piece.push_entry(&entry).unwrap();
        let event = TailedEvent::new("t-1".to_owned(), entry);
        // The second time, it is already encoded.
        for _ in 0..2 {
            piece.push_event(&event).unwrap();
        }
        let text = String::from_utf8(piece.with_position("t-2").into_bytes(()).to_vec()).unwrap();
        let data = "data: {\"id\":\"010101010101010101010101\",\"userId\":\"a\\nb\\r\",\"action\":\"A\",\
                    \"timestamp\":\"1970-01-01T00:00:00.000Z\",\"metadata\":{\"a\":   \"x\\ny\"}}";
        let expected = format!(
            "event: skipped\ndata: {{\"count\":12}}\n\nevent: log\n{data}\n\n\
             event: log\nid: t-1\n{data}\n\nevent: log\nid: t-1\n{data}\n\nid: t-2\n\n"
        );
        assert_eq!(text, expected);
    }
}
