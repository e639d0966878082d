//! The format of server-sent events: bytes in, frames out.

use crate::model::errors::RequestError;

/// The maximum size of a frame, in bytes. An event has at most 16 MiB.
const MAX_BYTES: usize = 32 << 20;

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// The type, such as `log`. Empty if it has only an id.
    pub(super) event: String,
    pub(super) data: Vec<u8>,
    pub(super) id: Option<String>,
}

/// Splits a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// The beginning of the first line that is not parsed.
    start: usize,
    /// The bytes before this one contain no further line break.
    scanned: usize,
    /// The lines of the next frame.
    frame: Frame,
}

impl Frames {
    /// Adds bytes in the order in which they arrived.
    ///
    /// # Errors
    /// Returns an error if a frame is too large.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() + self.frame.data.len() > MAX_BYTES {
            let message = format!("a frame of the tail has more than {MAX_BYTES} bytes");
            return Err(RequestError::UnexpectedResponse(message));
        }
        Ok(())
    }

    /// Returns the next complete frame.
    pub(super) fn next(&mut self) -> Option<Frame> {
        while let Some(length) = self.bytes[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let (start, end) = (self.start, self.scanned + length);
            (self.start, self.scanned) = (end + 1, end + 1);
            let line = &self.bytes[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                Self::add_line(&mut self.frame, line);
            } else if self.frame != Frame::default() {
                return Some(std::mem::take(&mut self.frame));
            }
        }
        self.scanned = self.bytes.len();
        None
    }

    /// Adds a line to the frame. A comment begins with a colon, and is a field
    /// without a name.
    fn add_line(frame: &mut Frame, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match &line[..colon] {
            b"event" => frame.event = text(),
            b"id" => frame.id = Some(text()),
            b"data" => {
                if !frame.data.is_empty() {
                    frame.data.push(b'\n');
                }
                frame.data.extend_from_slice(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str, data: &str, id: Option<&str>) -> Frame {
        Frame { event: event.to_owned(), data: data.into(), id: id.map(str::to_owned) }
    }

    #[test]
    fn frames_do_not_depend_on_how_the_bytes_are_split() {
        let text = ": hello\n\nid: 0\n\nevent: log\r\nid:1\r\ndata: {\"a\":\ndata:  2}\n\nretry: 5\n\n\
                    event: skipped\ndata: {}\n\nevent: log\ndata: unfinished\n";
        let expected = [
            frame("", "", Some("0")),
            frame("log", "{\"a\":\n 2}", Some("1")),
            frame("skipped", "{}", None),
        ];
        for size in 1..text.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                frames.push(piece).unwrap();
                found.extend(std::iter::from_fn(|| frames.next()));
            }
            assert_eq!(found, expected, "pieces of {size} bytes");
        }
    }

    #[test]
    fn a_frame_without_end_is_an_error() {
        let mut frames = Frames::default();
        let piece = vec![b'x'; MAX_BYTES / 2];
        let results = [(); 3].map(|()| {
            let result = frames.push(&piece);
            assert!(frames.next().is_none());
            result.is_ok()
        });
        assert_eq!(results, [true, true, false]);
    }
}
