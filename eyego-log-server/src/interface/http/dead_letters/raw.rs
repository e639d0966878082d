//! The original bytes of a dead letter in a response, in pieces of a bounded size.

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use serde::{Serialize, Serializer};
use utoipa::PartialSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use crate::domain::dead_letter::beginning;

/// Maximum size of a piece as JSON, in bytes.
pub(super) const MAX_JSON_BYTES: usize = 16 << 20;

/// A piece of a record's bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Piece<'a> {
    #[serde(flatten)]
    bytes: Bytes<'a>,
    /// Size of all bytes that are kept, if the piece is only a part of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_size: Option<usize>,
    /// Where the next piece starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<usize>,
}

#[derive(Debug, Serialize)]
enum Bytes<'a> {
    #[serde(rename = "raw")]
    Text(&'a str),
    #[serde(rename = "rawBase64", serialize_with = "base64")]
    Base64(&'a [u8]),
}

fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(bytes, &BASE64_STANDARD))
}

impl PartialSchema for Piece<'_> {
    fn schema() -> RefOr<Schema> {
        let field = |kind: Type, description| {
            ObjectBuilder::new().schema_type(kind).description(Some(description))
        };
        ObjectBuilder::new()
            .property(
                "raw",
                field(
                    Type::String,
                    "The bytes of the record, or a part of them, if they are UTF-8.",
                ),
            )
            .property(
                "rawBase64",
                field(Type::String, "The same in Base64, if they are not UTF-8."),
            )
            .property(
                "rawSize",
                field(
                    Type::Integer,
                    "Number of all bytes that are kept, if this is a part of them.",
                ),
            )
            .property(
                "nextOffset",
                field(Type::Integer, "`offset` of the next part. Missing in the last one."),
            )
            .into()
    }
}

impl<'a> Piece<'a> {
    /// Returns the piece of `raw` that starts at `offset`. It is text if all of `raw` is
    /// UTF-8 and a character starts there.
    ///
    /// # Errors
    /// Returns the reason the offset is invalid.
    pub(super) fn new(raw: &'a [u8], offset: usize) -> Result<Self, String> {
        let size = raw.len();
        if offset > 0 && offset >= size {
            return Err(format!("must be less than {size}, the size of the record's bytes"));
        }
        let text = std::str::from_utf8(raw).ok().and_then(|text| text.get(offset..));
        let (bytes, length) = if let Some(text) = text {
            let text = fitting(text);
            (Bytes::Text(text), text.len())
        } else {
            let rest = &raw[offset..];
            let rest = &rest[..rest.len().min(MAX_JSON_BYTES / 4 * 3)];
            (Bytes::Base64(rest), rest.len())
        };
        let end = offset + length;
        let is_part = length < size;
        let (raw_size, next_offset) = (is_part.then_some(size), (end < size).then_some(end));
        Ok(Self { bytes, raw_size, next_offset })
    }

    /// Returns an upper bound of its size as JSON, in bytes.
    pub(super) fn json_bytes(&self) -> usize {
        /// The keys and the numbers.
        const FIXED: usize = 100;

        FIXED
            + match self.bytes {
                Bytes::Text(text) => text.bytes().map(escaped).sum(),
                Bytes::Base64(bytes) => bytes.len().div_ceil(3) * 4,
            }
    }
}

/// Returns the longest beginning of a text that is not too large as JSON.
fn fitting(text: &str) -> &str {
    let mut left = MAX_JSON_BYTES;
    let length = text.bytes().take_while(|byte| {
        let fits = left.checked_sub(escaped(*byte));
        left = fits.unwrap_or(0);
        fits.is_some()
    });
    beginning(text, length.count())
}

/// Returns the size of a byte of a JSON string.
fn escaped(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::Value;

    use super::*;

    /// Returns the joined pieces and their number.
    fn joined(raw: &[u8]) -> (Vec<u8>, usize) {
        let (mut all, mut count, mut offset) = (Vec::new(), 0, 0);
        loop {
            let piece = Piece::new(raw, offset).unwrap();
            let json = serde_json::to_vec(&piece).unwrap();
            assert!(json.len() <= piece.json_bytes(), "{} {}", json.len(), piece.json_bytes());
            assert!(json.len() <= MAX_JSON_BYTES + 100, "{}", json.len());
            let json: Value = serde_json::from_slice(&json).unwrap();
            count += 1;
            match (&json["raw"], &json["rawBase64"]) {
                (Value::String(text), Value::Null) => all.extend_from_slice(text.as_bytes()),
                (Value::Null, Value::String(text)) => {
                    all.extend(BASE64_STANDARD.decode(text).unwrap());
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(
                json["rawSize"].as_u64(),
                (count > 1 || all.len() < raw.len()).then_some(raw.len() as u64)
            );
            let Some(next) = json["nextOffset"].as_u64() else { return (all, count) };
            offset = usize::try_from(next).unwrap();
            assert_eq!(offset, all.len());
        }
    }

    #[test]
    fn pieces_are_bounded_and_join_to_the_whole() {
        for (raw, pieces) in [
            (Vec::new(), 1),
            (b"{}".to_vec(), 1),
            ("ü".as_bytes().to_vec(), 1),
            (vec![0xff; 3], 1),
            (vec![b'x'; MAX_JSON_BYTES], 1),
            (vec![b'x'; MAX_JSON_BYTES + 1], 2),
            (vec![1; 3 << 20], 2),
            ("\"\\\n".repeat(4 << 20).into_bytes(), 2),
            (format!("x{}", "ü😀".repeat(3 << 20)).into_bytes(), 2),
            (vec![0xff; 12 << 20], 1),
            (vec![0xff; (12 << 20) + 1], 2),
        ] {
            let (all, count) = joined(&raw);
            assert_eq!((all == raw, count), (true, pieces), "{} bytes", raw.len());
        }
    }

    #[test]
    fn offset_within_a_character_gives_bytes_and_one_past_the_end_an_error() {
        let piece = serde_json::to_string(&Piece::new("ü".as_bytes(), 1).unwrap()).unwrap();
        assert_eq!(piece, r#"{"rawBase64":"vA==","rawSize":2}"#);
        let error = Piece::new(b"abc", 3).unwrap_err();
        assert_eq!(error, "must be less than 3, the size of the record's bytes");
        assert!(Piece::new(b"", 0).is_ok());
    }
}
