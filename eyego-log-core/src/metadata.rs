//! Metadata: a JSON object, kept as text.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::field::{FieldError, FieldErrors, Path};
use crate::json::{self, Rules};
use crate::limits::MAX_DEPTH;

const FROM_CALLER: Rules = Rules { max_depth: MAX_DEPTH, unique_keys: true, exact_integers: true };

/// MongoDB rejects documents of more than 100 levels; metadata is the second.
const FROM_QUEUE: Rules = Rules { max_depth: 99, unique_keys: false, exact_integers: false };

/// Arbitrary metadata of an event: a JSON object.
///
/// It is validated once and kept as the text that was received, so that nothing
/// between the socket and the store has to parse and serialize it again. Every
/// `Metadata` can be stored and returned unchanged: no key is repeated or
/// contains U+0000, no string contains a lone surrogate, and every number fits
/// an `i64` or an `f64`.
///
/// ```
/// use eyego_log_core::Metadata;
/// use serde_json::json;
///
/// let metadata = Metadata::from_serialize(&json!({"page": "home"}))?;
/// assert_eq!(metadata.as_json(), r#"{"page":"home"}"#);
/// assert_eq!(metadata.to_map()["page"], "home");
///
/// let error = Metadata::from_serialize(&[1, 2]).unwrap_err();
/// assert_eq!(error.to_string(), "metadata must be an object");
/// # Ok::<(), eyego_log_core::FieldErrors>(())
/// ```
#[derive(Clone)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// Creates metadata from JSON text.
    ///
    /// # Errors
    /// Returns an error for every invalid value, up to a limit, if `text` is not
    /// JSON, is not an object or cannot be stored unchanged. The paths start
    /// with `metadata`.
    pub fn from_json(text: String) -> Result<Self, FieldErrors> {
        let raw = RawValue::from_string(text)
            .map_err(|error| FieldError::new("metadata", format!("must be JSON: {error}")))?;
        let mut errors = FieldErrors::new();
        let metadata = Self::from_raw(&raw, &mut errors);
        metadata.ok_or(errors)
    }

    /// Checks whether [`from_json`](Self::from_json) accepts `text`, without
    /// copying it.
    ///
    /// # Errors
    /// Returns the same errors as [`from_json`](Self::from_json).
    pub fn check(text: &str) -> Result<(), FieldErrors> {
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| FieldError::new("metadata", format!("must be JSON: {error}")))?;
        let mut errors = FieldErrors::new();
        Self::check_raw(raw, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Serializes `value` as metadata.
    ///
    /// # Errors
    /// Returns an error if `value` cannot be serialized as JSON, and the same
    /// errors as [`from_json`](Self::from_json).
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, FieldErrors> {
        let text = serde_json::to_string(value)
            .map_err(|error| FieldError::new("metadata", format!("must be JSON: {error}")))?;
        Self::from_json(text)
    }

    /// Creates metadata from a queue record. Only what no store can hold is an
    /// error. If a key is repeated, its last value is kept, as in JavaScript.
    pub(crate) fn from_queue(raw: &RawValue) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        if !is_object(raw) {
            errors.push(FieldError::new("metadata", "must be an object"));
            return Err(errors);
        }
        if json::is_plain(raw.get(), FROM_CALLER) {
            return Ok(Self(raw.get().into()));
        }
        let repeats = json::find_errors(raw, Path::Field("metadata"), FROM_QUEUE, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        if !repeats {
            return Ok(Self(raw.get().into()));
        }
        let last_wins: Result<Map<String, Value>, _> = serde_json::from_str(raw.get());
        last_wins
            .and_then(|map| serde_json::value::to_raw_value(&map))
            .map(|raw| Self(raw.into()))
            .map_err(|error| FieldError::new("metadata", format!("must be JSON: {error}")).into())
    }

    /// Creates metadata from the stored text of a JSON object. Returns `None` if it is
    /// not an object.
    ///
    /// Only the first and the last character are checked: the text was validated before
    /// it was stored, and parsing it again takes long (ADR 0043). If it is not JSON after
    /// all, serializing it returns an error.
    #[must_use]
    pub fn from_stored(text: impl Into<Box<str>>) -> Option<Self> {
        let text = text.into();
        (text.starts_with('{') && text.ends_with('}')).then_some(Self(text))
    }

    /// Creates metadata that a caller sent. Appends to `errors` and returns
    /// `None` if it is invalid.
    pub(crate) fn from_raw(raw: &RawValue, errors: &mut FieldErrors) -> Option<Self> {
        Self::check_raw(raw, errors).then(|| Self(raw.get().into()))
    }

    fn check_raw(raw: &RawValue, errors: &mut FieldErrors) -> bool {
        if !is_object(raw) {
            errors.push(FieldError::new("metadata", "must be an object"));
            return false;
        }
        if json::is_plain(raw.get(), FROM_CALLER) {
            return true;
        }
        let before = errors.total();
        json::find_errors(raw, Path::Field("metadata"), FROM_CALLER, errors);
        errors.total() == before
    }

    /// Returns the object as JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Parses the object into a map.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        // The text is a validated object. Parsing it can fail only if it comes
        // from a store and has more than the parser's 128 levels.
        serde_json::from_str(self.as_json()).unwrap_or_default()
    }

    /// Returns `true` if both are the same JSON value. Whitespace and the order
    /// of keys do not matter; the kind of a number does (1 is not 1.0).
    #[must_use]
    pub fn is_same_value(&self, other: &Self) -> bool {
        self.as_json() == other.as_json() || self.to_map() == other.to_map()
    }
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

impl Default for Metadata {
    /// Returns the empty object.
    fn default() -> Self {
        Self("{}".into())
    }
}

impl TryFrom<Map<String, Value>> for Metadata {
    type Error = FieldErrors;

    fn try_from(map: Map<String, Value>) -> Result<Self, FieldErrors> {
        Self::from_serialize(&map)
    }
}

impl PartialEq for Metadata {
    /// Compares with [`is_same_value`](Self::is_same_value).
    fn eq(&self, other: &Self) -> bool {
        self.is_same_value(other)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        if is_object(&raw) {
            Ok(Self(raw.into()))
        } else {
            Err(serde::de::Error::custom("metadata is not an object"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error_paths(text: &str) -> Vec<String> {
        Metadata::from_json(text.to_owned())
            .unwrap_err()
            .into_vec()
            .into_iter()
            .map(|error| error.path)
            .collect()
    }

    #[test]
    fn every_error_is_found_at_any_depth() {
        assert_eq!(error_paths("[]"), ["metadata"]);
        assert!(Metadata::check(r#"{"n": 18446744073709551615}"#).is_err());
        assert!(Metadata::check(r#"{"n": 1e19}"#).is_ok());
        assert_eq!(error_paths("not json"), ["metadata"]);
        assert_eq!(
            error_paths(
                r#"{"a": [0, {"b": 9223372036854775808}], "c": 1e999, "d": "\ud800",
                    "e\u0000": {"f": -1e400}, "g": {"h": 1, "h": "\udc00x"}}"#
            ),
            [
                "metadata.a[1].b",
                "metadata.c",
                "metadata.d",
                r#"metadata["e\u0000"]"#,
                r#"metadata["e\u0000"].f"#,
                "metadata.g.h",
                "metadata.g.h",
            ]
        );
    }

    #[test]
    fn storable_json_is_valid() {
        for text in [
            "{}",
            r#"{"": {"": []}, "a.b": 1, "$set": {"$oid": "x"}, "é\n": "\u0000\ud83d\ude00"}"#,
            r#"{"min": -9223372036854775808, "max": 9223372036854775807}"#,
            r#"{"large": 1e300, "tiny": 5e-324, "beyond": 9223372036854775808.0, "zero": -0}"#,
        ] {
            let metadata = Metadata::from_json(text.to_owned()).unwrap();
            assert_eq!(metadata.as_json(), text, "kept byte for byte");
        }
    }

    #[test]
    fn more_than_32_levels_are_an_error() {
        let nested = |levels: usize| "{\"a\":".repeat(levels - 1) + "{}" + &"}".repeat(levels - 1);
        assert!(Metadata::from_json(nested(32)).is_ok());
        let error = Metadata::from_json(nested(33)).unwrap_err();
        assert!(error.to_string().ends_with("must not be nested deeper than 32 levels"), "{error}");
        let arrays = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        assert!(Metadata::from_json(arrays(32)).is_ok());
        assert!(Metadata::from_json(arrays(33)).is_err());
        assert!(Metadata::from_json(arrays(100_000)).is_err(), "without overflowing the stack");
    }

    #[test]
    fn repeated_keys_are_found_in_small_and_large_objects() {
        for count in [1, 15, 16, 17, 100] {
            let keys: Vec<_> = (0..count).map(|n| format!("\"k{n}\": {n}")).collect();
            let object = format!("{{{}}}", keys.join(","));
            assert!(Metadata::from_json(object).is_ok());
            let object = format!("{{{}, \"k0\": 0}}", keys.join(","));
            assert_eq!(error_paths(&object), ["metadata.k0"]);
        }
        assert!(
            Metadata::from_json(r#"{"a": {"k": 1}, "b": {"k": 2}, "k": 3}"#.to_owned()).is_ok(),
            "the same key in two objects is not repeated"
        );
        assert_eq!(error_paths(r#"{"a": 1, "\u0061": 2}"#), ["metadata.a"], "escaped or not");
    }

    #[test]
    fn the_number_of_errors_is_limited() {
        let text = format!("{{\"a\": [{}]}}", ["1e999"; 5000].join(","));
        let errors = Metadata::from_json(text).unwrap_err();
        assert_eq!(errors.len(), 21);
        assert!(errors.to_string().ends_with("; and 4980 more errors"), "{errors}");
    }

    #[test]
    fn queued_metadata_is_invalid_only_if_no_store_can_hold_it() {
        let from_queue =
            |text: &str| Metadata::from_queue(serde_json::from_str::<&RawValue>(text).unwrap());
        let last_wins = from_queue(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(last_wins.to_map(), *json!({"a": 3, "b": 2}).as_object().unwrap());
        assert!(from_queue(r#"{"fromJavaScript": 12345678901234567000}"#).is_ok());
        assert!(from_queue(r#"{"beyond": 18446744073709551615}"#).is_err());
        assert!(from_queue(r#"{"a": 1e999}"#).is_err());
        assert!(from_queue(r#"{"a\u0000": 1}"#).is_err());
        assert!(from_queue("[]").is_err());
        let deep = "{\"a\":".repeat(50) + "1" + &"}".repeat(50);
        assert!(from_queue(&deep).is_ok(), "the limit of 32 levels applies to HTTP only");
    }

    #[test]
    fn stored_metadata_is_an_object_and_checked_when_it_is_serialized() {
        let stored = Metadata::from_stored(r#"{"a" : 1}"#).unwrap();
        assert_eq!(serde_json::to_string(&stored).unwrap(), r#"{"a" : 1}"#);
        for text in ["", "[]", "null", "{\"a\""] {
            assert!(Metadata::from_stored(text).is_none(), "{text}");
        }
        let damaged = Metadata::from_stored(r#"{"a":}"#).unwrap();
        assert!(serde_json::to_string(&damaged).is_err());
    }
}
