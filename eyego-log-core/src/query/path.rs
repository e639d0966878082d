//! A metadata path that selects a value, for columns and statistics.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::InvalidValue;
use crate::limits::MAX_PATH_SEGMENTS;

/// A path such as `cart.total`, which selects at most one value of the metadata.
///
/// As in a filter, each way to split the path into keys is tried. The first one
/// that leads to a value counts, with the shortest keys first. Arrays are not
/// searched.
///
/// ```
/// use eyego_log_core::query::MetadataPath;
/// use serde_json::json;
///
/// let path = MetadataPath::new("cart.total").unwrap();
/// for metadata in [json!({"cart": {"total": 5}}), json!({"cart.total": 5})] {
///     assert_eq!(path.value(metadata.as_object().unwrap()), Some(&json!(5)));
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataPath(String);

impl MetadataPath {
    /// Creates a path whose segments are separated by dots.
    ///
    /// # Errors
    /// Returns an error if `path` has more than [`MAX_PATH_SEGMENTS`] segments or
    /// contains U+0000.
    pub fn new(path: &str) -> Result<Self, InvalidValue> {
        if path.split('.').count() > MAX_PATH_SEGMENTS {
            return Err(InvalidValue::TooManySegments { max: MAX_PATH_SEGMENTS });
        }
        if path.contains('\0') {
            return Err(InvalidValue::ContainsNul);
        }
        Ok(Self(path.to_owned()))
    }

    /// Returns the path as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value at this path.
    #[must_use]
    pub fn value<'a>(&self, metadata: &'a Map<String, Value>) -> Option<&'a Value> {
        below(metadata, &self.0)
    }

    /// Returns the text of the string, number, boolean or null at this path, as a
    /// filter would be given it. Equal numbers have the same text.
    #[must_use]
    pub fn scalar_text<'a>(&self, metadata: &'a Map<String, Value>) -> Option<Cow<'a, str>> {
        match self.value(metadata)? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => {
                // The same value as an integer and as a float.
                let whole = number.as_f64().filter(|_| !number.is_i64()).and_then(whole);
                Some(Cow::Owned(whole.map_or_else(|| number.to_string(), |n| n.to_string())))
            }
            scalar @ (Value::Bool(_) | Value::Null) => Some(Cow::Owned(scalar.to_string())),
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}

fn whole(float: f64) -> Option<i64> {
    const END: f64 = (1_u64 << 63) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "the float is whole and in range")]
    let integer = (float.fract() == 0.0 && (-END..END).contains(&float)).then_some(float as i64);
    integer
}

fn below<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let key_ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    for end in key_ends {
        let Some(member) = object.get(&path[..end]) else { continue };
        let found = match path.get(end + 1..) {
            None => Some(member),
            Some(rest) => member.as_object().and_then(|member| below(member, rest)),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_the_same_text() {
        let path = MetadataPath::new("a.b").unwrap();
        for (value, text) in [
            (json!(1), Some("1")),
            (json!(1.0), Some("1")),
            (json!(-0.5), Some("-0.5")),
            (json!(i64::MAX), Some("9223372036854775807")),
            (json!(true), Some("true")),
            (json!(null), Some("null")),
            (json!("text"), Some("text")),
            (json!([1]), None),
            (json!({}), None),
        ] {
            for metadata in [json!({"a": {"b": value}}), json!({"a.b": value, "a": 1})] {
                let found = path.scalar_text(metadata.as_object().unwrap());
                assert_eq!(found.as_deref(), text, "{metadata}");
            }
        }
        assert_eq!(path.scalar_text(json!({"a": 1}).as_object().unwrap()), None);
        assert!(MetadataPath::new("1.2.3.4.5.6.7.8.9").is_err());
    }
}
