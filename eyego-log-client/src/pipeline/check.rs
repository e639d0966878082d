//! Detects, while metadata is serialized, whether it may contain an error that
//! the server would reject.
//!
//! `eyego_log_core::Metadata::check` decides, but it parses the text again. This
//! formatter is fast and may suspect valid metadata, which costs only that
//! second pass; it never overlooks an error. ADR 0014 has the figures.

use std::io::{self, Write};

use eyego_log_core::limits::MAX_DEPTH;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// The number of keys to remember, over all open objects. Metadata with more is
/// suspect.
const MAX_KEYS: usize = 48;

const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a, but over words of four bytes as far as possible: each step waits for
/// the one before it, so single bytes would take four times as long.
#[inline]
fn extend_hash(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u32| (hash ^ u64::from(word)).wrapping_mul(FNV_PRIME);
    let (words, rest) = bytes.as_chunks();
    let hash = words.iter().fold(hash, |hash, word| step(hash, u32::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| step(hash, u32::from(*byte)))
}

/// Returns the hash of a key that needs no escapes.
pub(crate) fn hash_of_key(key: &[u8]) -> u64 {
    extend_hash(FNV_OFFSET_BASIS, key)
}

/// What the formatter has found in one event's metadata.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The metadata may be invalid.
    pub(crate) is_suspect: bool,
    /// The metadata contains a `RawValue`, which may contain line breaks.
    pub(crate) has_raw_text: bool,
    in_key: bool,
    depth: usize,
    /// The hashes of the keys of the open objects, outermost first.
    keys: [u64; MAX_KEYS],
    key_count: usize,
    /// The number of keys of the outermost object, once it is closed.
    outer_keys: usize,
    /// For each open object, the index of its first key.
    first_keys: [usize; MAX_DEPTH],
    /// The hash of the current key.
    key: u64,
}

impl Findings {
    pub(crate) const fn new() -> Self {
        Self {
            is_suspect: false,
            has_raw_text: false,
            in_key: false,
            depth: 0,
            keys: [0; MAX_KEYS],
            key_count: 0,
            outer_keys: 0,
            first_keys: [0; MAX_DEPTH],
            key: 0,
        }
    }

    /// Prepares for the next event. Stale hashes are never read.
    pub(crate) fn clear(&mut self) {
        self.is_suspect = false;
        self.has_raw_text = false;
        self.in_key = false;
        self.depth = 0;
        self.key_count = 0;
        self.outer_keys = 0;
    }

    /// Returns whether the outermost object may have a key with this hash. This
    /// is exact, apart from equal hashes, unless the metadata is suspect.
    pub(crate) fn has_key(&self, hash: u64) -> bool {
        self.keys[..self.outer_keys].contains(&hash)
    }

    #[inline]
    fn open(&mut self) {
        match self.first_keys.get_mut(self.depth) {
            Some(first) => *first = self.key_count,
            None => self.is_suspect = true,
        }
        self.depth += 1;
    }

    #[inline]
    fn close(&mut self) {
        if self.depth == 1 {
            self.outer_keys = self.key_count;
        }
        self.depth = self.depth.saturating_sub(1);
        if let Some(first) = self.first_keys.get(self.depth) {
            self.key_count = *first;
        }
    }

    #[inline]
    fn begin_key(&mut self) {
        self.in_key = true;
        self.key = FNV_OFFSET_BASIS;
    }

    /// Adds a fragment of a key to its hash. Two keys with the same hash
    /// only make the metadata suspect.
    #[inline]
    fn hash_key(&mut self, fragment: &[u8]) {
        self.key = extend_hash(self.key, fragment);
    }

    #[inline]
    fn end_key(&mut self) {
        self.in_key = false;
        let first = self.depth.checked_sub(1).and_then(|depth| self.first_keys.get(depth));
        let (Some(first), true) = (first, self.key_count < MAX_KEYS) else {
            self.is_suspect = true;
            return;
        };
        if self.keys[*first..self.key_count].contains(&self.key) {
            self.is_suspect = true;
        }
        self.keys[self.key_count] = self.key;
        self.key_count += 1;
    }
}

/// Writes compact JSON and records its findings.
pub(crate) struct CheckingFormatter<'a>(pub(crate) &'a mut Findings);

impl Formatter for CheckingFormatter<'_> {
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.open();
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.close();
        CompactFormatter.end_object(writer)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.open();
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.close();
        CompactFormatter.end_array(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_key();
        CompactFormatter.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_key();
        CompactFormatter.end_object_key(writer)
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if self.0.in_key {
            self.0.hash_key(fragment.as_bytes());
        }
        CompactFormatter.write_string_fragment(writer, fragment)
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        // Escapes in keys are too rare to hash.
        self.0.is_suspect |= self.0.in_key;
        CompactFormatter.write_char_escape(writer, escape)
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.0.is_suspect |= self.0.in_key;
        CompactFormatter.write_i64(writer, value)
    }

    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        self.0.is_suspect |= self.0.in_key || i64::try_from(value).is_err();
        CompactFormatter.write_u64(writer, value)
    }

    fn write_i128<W: ?Sized + Write>(&mut self, writer: &mut W, value: i128) -> io::Result<()> {
        self.0.is_suspect = true;
        CompactFormatter.write_i128(writer, value)
    }

    fn write_u128<W: ?Sized + Write>(&mut self, writer: &mut W, value: u128) -> io::Result<()> {
        self.0.is_suspect = true;
        CompactFormatter.write_u128(writer, value)
    }

    fn write_raw_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.0.is_suspect = true;
        self.0.has_raw_text = true;
        CompactFormatter.write_raw_fragment(writer, fragment)
    }

    fn write_number_str<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        value: &str,
    ) -> io::Result<()> {
        self.0.is_suspect = true;
        CompactFormatter.write_number_str(writer, value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    fn is_suspect(value: &impl Serialize) -> bool {
        let mut findings = Findings::new();
        let mut out = Vec::new();
        value
            .serialize(&mut serde_json::Serializer::with_formatter(
                &mut out,
                CheckingFormatter(&mut findings),
            ))
            .unwrap();
        assert_eq!(out, serde_json::to_vec(value).unwrap());
        findings.is_suspect
    }

    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!({}), |inner, _| json!({"inner": [], "k": inner}))
    }

    #[test]
    fn ordinary_metadata_is_not_suspect() {
        assert!(!is_suspect(&json!({"page": "home\0", "n": [1, -2, 2.5, null], "o": {"page": 1}})));
        assert!(!is_suspect(&json!({"a": {"k": 1}, "b": {"k": 1}, "i64": i64::MAX})));
        assert!(!is_suspect(&nested(20)));
    }

    #[test]
    fn metadata_that_may_be_invalid_is_suspect() {
        #[derive(Serialize)]
        struct Twice {
            k: u8,
            #[serde(flatten)]
            more: BTreeMap<&'static str, u8>,
        }
        assert!(is_suspect(&Twice { k: 1, more: BTreeMap::from([("k", 2)]) }));
        assert!(is_suspect(&json!({"a\0b": 1})));
        assert!(is_suspect(&json!({"n": u64::MAX})));
        assert!(is_suspect(&BTreeMap::from([("n", u128::MAX)])));
        assert!(is_suspect(&nested(33)));
    }
}
