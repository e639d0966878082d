//! Encodes entries as BSON documents. Metadata is converted from JSON text to BSON
//! bytes in one pass, without an intermediate tree. [`decode`](super::decode) is
//! the inverse.
//!
//! Keys are literal, including `$oid`, `a.b` and the empty key: extended JSON is
//! not interpreted. An integer becomes an `Int32` if it fits, otherwise an
//! `Int64` if it fits, otherwise a double. A number with a fraction or an
//! exponent is a double.

use std::fmt;

use eyego_log_core::{LogEntry, Timestamp};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

pub(super) const DOUBLE: u8 = 0x01;
pub(super) const STRING: u8 = 0x02;
pub(super) const DOCUMENT: u8 = 0x03;
pub(super) const ARRAY: u8 = 0x04;
const OBJECT_ID: u8 = 0x07;
const BOOLEAN: u8 = 0x08;
const DATE: u8 = 0x09;
const NULL: u8 = 0x0a;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;

/// Appends `entry` as a document.
///
/// # Errors
/// Returns an error if BSON cannot represent the metadata. `out` is then
/// unchanged.
pub(super) fn push_entry(out: &mut Vec<u8>, entry: &LogEntry) -> Result<(), serde_json::Error> {
    let start = open(out);
    push_key(out, OBJECT_ID, "_id");
    out.extend_from_slice(entry.id.as_bytes());
    push_key(out, STRING, "userId");
    push_string(out, entry.user_id.as_str());
    push_key(out, STRING, "action");
    push_string(out, entry.action.as_str());
    push_date(out, "timestamp", entry.timestamp);
    let type_at = out.len();
    push_key(out, DOCUMENT, "metadata");
    let mut json = serde_json::Deserializer::from_str(entry.metadata.as_json());
    if let Err(error) = (Value { out, type_at }).deserialize(&mut json) {
        out.truncate(start);
        return Err(error);
    }
    if let Some(received_at) = entry.received_at {
        push_date(out, "receivedAt", received_at);
    }
    close(out, start);
    Ok(())
}

/// Starts a document or an array. Returns its position.
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    start
}

/// Ends the document or array that starts at `start`.
pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    out.push(0);
    let size = size(out.len() - start);
    out[start..start + 4].copy_from_slice(&size);
}

/// Starts an element of this type and key.
pub(super) fn push_key(out: &mut Vec<u8>, element_type: u8, key: &str) {
    out.push(element_type);
    out.extend_from_slice(key.as_bytes());
    out.push(0);
}

/// Starts the array element at `index`.
pub(super) fn push_index(out: &mut Vec<u8>, element_type: u8, index: usize) {
    out.push(element_type);
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    let mut rest = index;
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
    out.push(0);
}

fn push_date(out: &mut Vec<u8>, key: &str, time: Timestamp) {
    push_key(out, DATE, key);
    out.extend_from_slice(&time.as_millis().to_le_bytes());
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&size(text.len() + 1));
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// Encodes a size. A size that does not fit is far above MongoDB's limit, and the
/// document is rejected before it is sent.
fn size(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_le_bytes()
}

/// Writes one JSON value. Its key is already written, and its type goes to
/// `type_at`.
struct Value<'a> {
    out: &'a mut Vec<u8>,
    type_at: usize,
}

impl Value<'_> {
    fn put(&mut self, element_type: u8, bytes: &[u8]) {
        self.out[self.type_at] = element_type;
        self.out.extend_from_slice(bytes);
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.put(NULL, &[]);
        Ok(())
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.put(BOOLEAN, &[u8::from(value)]);
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        match i32::try_from(value) {
            Ok(small) => self.put(INT32, &small.to_le_bytes()),
            Err(_) => self.put(INT64, &value.to_le_bytes()),
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "core accepts only exact floats")]
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.put(DOUBLE, &value.to_le_bytes());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.out[self.type_at] = STRING;
        push_string(self.out, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { out, type_at } = self;
        out[type_at] = ARRAY;
        let start = open(out);
        for index in 0.. {
            let type_at = out.len();
            push_index(out, NULL, index);
            if elements.next_element_seed(Value { out, type_at })?.is_none() {
                out.truncate(type_at);
                break;
            }
        }
        close(out, start);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { out, type_at } = self;
        out[type_at] = DOCUMENT;
        let start = open(out);
        while let Some(type_at) = members.next_key_seed(Key { out })? {
            members.next_value_seed(Value { out, type_at })?;
        }
        close(out, start);
        Ok(())
    }
}

/// Writes a key. Returns the position for the type of its value.
struct Key<'a> {
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<usize, E> {
        // U+0000 would end the key, and the rest would be read as a value.
        if key.as_bytes().contains(&0) {
            return Err(E::custom("a key contains U+0000"));
        }
        let type_at = self.out.len();
        push_key(self.out, NULL, key);
        Ok(type_at)
    }
}

#[cfg(test)]
mod tests;
