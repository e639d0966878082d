//! Converts BSON values into JSON text in one pass. Types that JSON does not have,
//! such as dates that another program put into the metadata, are written as
//! relaxed extended JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::RawBsonRef;
use bson::error::Result;
use bson::raw::{RawArray, RawDocument};
use serde::Serialize;

/// Appends `document` as a JSON object, with its keys in their order.
///
/// # Errors
/// Returns an error if the bytes are not BSON.
pub(super) fn push_object(out: &mut Vec<u8>, document: &RawDocument) -> Result<()> {
    out.push(b'{');
    for (count, element) in document.iter().enumerate() {
        let (key, value) = element?;
        if count > 0 {
            out.push(b',');
        }
        push_member(out, key.as_str(), value)?;
    }
    out.push(b'}');
    Ok(())
}

fn push_array(out: &mut Vec<u8>, array: &RawArray) -> Result<()> {
    out.push(b'[');
    for (count, element) in array.into_iter().enumerate() {
        if count > 0 {
            out.push(b',');
        }
        push_value(out, element?)?;
    }
    out.push(b']');
    Ok(())
}

fn push_member(out: &mut Vec<u8>, key: &str, value: RawBsonRef<'_>) -> Result<()> {
    push_json(out, key);
    out.push(b':');
    push_value(out, value)
}

/// Appends a value that JSON can represent.
fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "writing a scalar to memory cannot fail");
}

/// Appends any value.
///
/// # Errors
/// Returns an error if the bytes are not BSON.
pub(super) fn push_value(out: &mut Vec<u8>, value: RawBsonRef<'_>) -> Result<()> {
    match value {
        RawBsonRef::Null | RawBsonRef::Undefined => out.extend_from_slice(b"null"),
        RawBsonRef::Boolean(value) => push_json(out, &value),
        RawBsonRef::Int32(value) => push_json(out, &value),
        RawBsonRef::Int64(value) => push_json(out, &value),
        // 1.0 is written with its decimal point, so it stays a double.
        RawBsonRef::Double(value) if value.is_finite() => push_json(out, &value),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => push_json(out, text),
        RawBsonRef::Document(document) => push_object(out, document)?,
        RawBsonRef::Array(array) => push_array(out, array)?,
        other => push_extended(out, other)?,
    }
    Ok(())
}

/// Appends a value that JSON cannot represent, as extended JSON.
fn push_extended(out: &mut Vec<u8>, value: RawBsonRef<'_>) -> Result<()> {
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
            push_wrapped(out, "$regularExpression", &members);
            return Ok(());
        }
        RawBsonRef::Binary(binary) => {
            let subtype = format!("{:02x}", u8::from(binary.subtype));
            let base64 = BASE64.encode(binary.bytes);
            push_wrapped(out, "$binary", &[("base64", &base64), ("subType", &subtype)]);
            return Ok(());
        }
        RawBsonRef::Timestamp(timestamp) => {
            let (time, increment) = (timestamp.time, timestamp.increment);
            let text = format!("{{\"$timestamp\":{{\"t\":{time},\"i\":{increment}}}}}");
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        RawBsonRef::MaxKey => return push_bound(out, "$maxKey"),
        RawBsonRef::MinKey => return push_bound(out, "$minKey"),
        // Only deprecated types are left.
        other => ("$undefined", format!("{:?}", other.element_type())),
    };
    out.push(b'{');
    push_member(out, name, RawBsonRef::String(&text))?;
    out.push(b'}');
    Ok(())
}

fn push_bound(out: &mut Vec<u8>, name: &str) -> Result<()> {
    out.push(b'{');
    push_member(out, name, RawBsonRef::Int32(1))?;
    out.push(b'}');
    Ok(())
}

fn push_wrapped(out: &mut Vec<u8>, name: &str, members: &[(&str, &str)]) {
    out.push(b'{');
    push_json(out, name);
    out.extend_from_slice(b":{");
    for (count, (name, value)) in members.iter().enumerate() {
        if count > 0 {
            out.push(b',');
        }
        push_json(out, name);
        out.push(b':');
        push_json(out, value);
    }
    out.extend_from_slice(b"}}");
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
        let mut out = Vec::new();
        push_object(&mut out, &raw).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
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
}
