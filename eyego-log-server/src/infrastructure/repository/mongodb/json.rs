//! Converts BSON values into JSON text in one pass. Types that JSON does not have,
//! such as dates that another program put into the metadata, are written as
//! relaxed extended JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::RawBsonRef;
use bson::raw::{RawArray, RawDocument};
use serde::Serialize;

use crate::domain::read::json_text_bytes;

/// Size in bytes above which a text is measured before it is written.
const LONG_TEXT: usize = 64 << 10;

/// Why a document has no JSON text.
#[derive(Debug, thiserror::Error)]
pub(super) enum JsonError {
    #[error("{0}")]
    Bson(#[from] bson::error::Error),
    #[error("its JSON text is too large")]
    TooLarge,
}

type Result<T> = std::result::Result<T, JsonError>;

/// JSON text up to a limit.
pub(super) struct JsonText {
    pub(super) bytes: Vec<u8>,
    max_bytes: usize,
}

impl JsonText {
    /// Starts a text of about `max_bytes` at most: one number, short name or closing
    /// bracket per level more. Has room for `capacity` bytes.
    pub(super) fn new(max_bytes: usize, capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity.min(max_bytes)), max_bytes }
    }

    fn check(&self, more: usize) -> Result<()> {
        if self.bytes.len().saturating_add(more) > self.max_bytes {
            return Err(JsonError::TooLarge);
        }
        Ok(())
    }
}

/// Appends `document` as a JSON object, with its keys in their order.
///
/// # Errors
/// Returns an error if the bytes are not BSON, or the text becomes too large.
pub(super) fn push_object(out: &mut JsonText, document: &RawDocument) -> Result<()> {
    out.bytes.push(b'{');
    for (count, element) in document.iter().enumerate() {
        let (key, value) = element?;
        if count > 0 {
            out.bytes.push(b',');
        }
        push_member(out, key.as_str(), value)?;
    }
    out.bytes.push(b'}');
    Ok(())
}

fn push_array(out: &mut JsonText, array: &RawArray) -> Result<()> {
    out.bytes.push(b'[');
    for (count, element) in array.into_iter().enumerate() {
        if count > 0 {
            out.bytes.push(b',');
        }
        push_value(out, element?)?;
    }
    out.bytes.push(b']');
    Ok(())
}

fn push_member(out: &mut JsonText, key: &str, value: RawBsonRef<'_>) -> Result<()> {
    push_text(out, key)?;
    out.bytes.push(b':');
    push_value(out, value)
}

/// Appends a text, which can be long.
fn push_text(out: &mut JsonText, text: &str) -> Result<()> {
    if text.len() > LONG_TEXT {
        out.check(json_text_bytes(text))?;
    }
    push_json(out, text);
    Ok(())
}

/// Appends a value that JSON can represent.
fn push_json<T: Serialize + ?Sized>(out: &mut JsonText, value: &T) {
    let written = serde_json::to_writer(&mut out.bytes, value);
    debug_assert!(written.is_ok(), "writing a scalar to memory cannot fail");
}

/// Appends any value.
///
/// # Errors
/// Returns an error if the bytes are not BSON, or the text becomes too large.
pub(super) fn push_value(out: &mut JsonText, value: RawBsonRef<'_>) -> Result<()> {
    out.check(0)?;
    match value {
        RawBsonRef::Null | RawBsonRef::Undefined => out.bytes.extend_from_slice(b"null"),
        RawBsonRef::Boolean(value) => push_json(out, &value),
        RawBsonRef::Int32(value) => push_json(out, &value),
        RawBsonRef::Int64(value) => push_json(out, &value),
        // 1.0 is written with its decimal point, so it stays a double.
        RawBsonRef::Double(value) if value.is_finite() => push_json(out, &value),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => push_text(out, text)?,
        RawBsonRef::Document(document) => push_object(out, document)?,
        RawBsonRef::Array(array) => push_array(out, array)?,
        other => push_extended(out, other)?,
    }
    Ok(())
}

/// Appends a value that JSON cannot represent, as extended JSON.
fn push_extended(out: &mut JsonText, value: RawBsonRef<'_>) -> Result<()> {
    let (name, text) = match value {
        RawBsonRef::ObjectId(id) => ("$oid", id.to_hex()),
        RawBsonRef::DateTime(time) => match time.try_to_rfc3339_string() {
            Ok(text) => ("$date", text),
            // After the year 9999.
            Err(_) => ("$date", time.timestamp_millis().to_string()),
        },
        RawBsonRef::Decimal128(number) => ("$numberDecimal", number.to_string()),
        RawBsonRef::Double(value) if value.is_nan() => ("$numberDouble", "NaN".to_owned()),
        RawBsonRef::Double(value) if value > 0.0 => ("$numberDouble", "Infinity".to_owned()),
        RawBsonRef::Double(_) => ("$numberDouble", "-Infinity".to_owned()),
        RawBsonRef::JavaScriptCode(code) => ("$code", code.to_owned()),
        RawBsonRef::JavaScriptCodeWithScope(code) => ("$code", code.code.to_owned()),
        RawBsonRef::RegularExpression(regex) => {
            let (pattern, options) = (regex.pattern.as_str(), regex.options.as_str());
            let members = [("pattern", pattern), ("options", options)];
            return push_wrapped(out, "$regularExpression", &members);
        }
        RawBsonRef::Binary(binary) => {
            out.check(binary.bytes.len())?;
            let subtype = format!("{:02x}", u8::from(binary.subtype));
            let base64 = BASE64.encode(binary.bytes);
            return push_wrapped(out, "$binary", &[("base64", &base64), ("subType", &subtype)]);
        }
        RawBsonRef::Timestamp(timestamp) => {
            let (time, increment) = (timestamp.time, timestamp.increment);
            let text = format!("{{\"$timestamp\":{{\"t\":{time},\"i\":{increment}}}}}");
            out.bytes.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        RawBsonRef::MaxKey => return push_bound(out, "$maxKey"),
        RawBsonRef::MinKey => return push_bound(out, "$minKey"),
        // Only deprecated types are left.
        other => ("$undefined", format!("{:?}", other.element_type())),
    };
    out.bytes.push(b'{');
    push_member(out, name, RawBsonRef::String(&text))?;
    out.bytes.push(b'}');
    Ok(())
}

fn push_bound(out: &mut JsonText, name: &str) -> Result<()> {
    out.bytes.push(b'{');
    push_member(out, name, RawBsonRef::Int32(1))?;
    out.bytes.push(b'}');
    Ok(())
}

fn push_wrapped(out: &mut JsonText, name: &str, members: &[(&str, &str)]) -> Result<()> {
    out.bytes.push(b'{');
    push_json(out, name);
    out.bytes.extend_from_slice(b":{");
    for (count, (name, value)) in members.iter().enumerate() {
        if count > 0 {
            out.bytes.push(b',');
        }
        push_json(out, name);
        out.bytes.push(b':');
        push_text(out, value)?;
    }
    out.bytes.extend_from_slice(b"}}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use bson::spec::BinarySubtype;
    use bson::{Binary, DateTime, Regex, Timestamp, doc, oid::ObjectId};

    use super::*;

    #[test]
    fn types_without_a_json_equivalent_are_relaxed_extended_json() {
        let document = doc! {
            "oid": ObjectId::from_bytes([7; 12]),
            "date": DateTime::from_millis(1_768_435_085_442),
            "nan": f64::NAN,
            "infinity": f64::INFINITY,
            "minus": f64::NEG_INFINITY,
            "binary": Binary { subtype: BinarySubtype::Generic, bytes: b"any carnal pleas".to_vec() },
            "regex": Regex {
                pattern: "^a".try_into().unwrap(),
                options: "i".try_into().unwrap(),
            },
            "timestamp": Timestamp { time: 1, increment: 2 },
            "max": bson::Bson::MaxKey,
            "decimal": "1.50".parse::<bson::Decimal128>().unwrap(),
            "undefined": bson::Bson::Undefined,
        };
        let raw = bson::RawDocumentBuf::try_from(&document).unwrap();
        let mut out = JsonText::new(usize::MAX, 0);
        push_object(&mut out, &raw).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&out.bytes).unwrap();
        assert_eq!(
            read,
            serde_json::json!({
                "oid": {"$oid": "070707070707070707070707"},
                "date": {"$date": "2026-01-14T23:58:05.442Z"},
                "nan": {"$numberDouble": "NaN"},
                "infinity": {"$numberDouble": "Infinity"},
                "minus": {"$numberDouble": "-Infinity"},
                "binary": {"$binary": {"base64": "YW55IGNhcm5hbCBwbGVhcw==", "subType": "00"}},
                "regex": {"$regularExpression": {"pattern": "^a", "options": "i"}},
                "timestamp": {"$timestamp": {"t": 1, "i": 2}},
                "max": {"$maxKey": 1},
                "decimal": {"$numberDecimal": "1.50"},
                "undefined": null,
            })
        );
    }

    /// The worst cases: 2 bytes of BSON that become 17, and bytes that become 6.
    #[test]
    fn text_above_the_limit_is_not_written() {
        const MAX: usize = 1 << 20;
        let bounds = vec![bson::Bson::MaxKey; 300_000];
        let binary = Binary { subtype: BinarySubtype::Generic, bytes: vec![1; MAX] };
        for (name, value) in [
            ("bounds", bson::Bson::from(bounds)),
            ("controls", "\u{1}".repeat(MAX / 2).into()),
            ("numbers", vec![f64::MIN_POSITIVE; 100_000].into()),
            ("binary", binary.into()),
            ("code", bson::Bson::JavaScriptCode("\u{1}".repeat(MAX / 2))),
            ("nested", vec![doc! { "a": "x".repeat(60_000) }; 20].into()),
        ] {
            let raw = bson::RawDocumentBuf::try_from(&doc! { name: value }).unwrap();
            let mut out = JsonText::new(MAX, 0);
            let error = push_object(&mut out, &raw).unwrap_err();
            assert!(matches!(error, JsonError::TooLarge), "{name}: {error}");
            assert!(out.bytes.len() <= MAX + LONG_TEXT * 6, "{name}: {}", out.bytes.len());
        }
        let raw = bson::RawDocumentBuf::try_from(&doc! { "a": "x".repeat(MAX - 20) }).unwrap();
        push_object(&mut JsonText::new(MAX, 0), &raw).unwrap();
    }
}
