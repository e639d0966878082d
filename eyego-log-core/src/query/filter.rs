//! Metadata filters and their matching rules.

use serde_json::Value;

use super::path::MetadataPath;
use crate::InvalidValue;

/// A condition on the value at one metadata path.
///
/// Every store follows these rules. [`matches`](Self::matches) is their
/// executable specification:
/// - `a.b` names the member `b` of the object `a`, and also a member whose own
///   key is `a.b`: every way to split the path is tried.
/// - If a value on the path is an array, the filter matches if one of its
///   elements matches. Arrays nested directly in arrays do not match.
/// - The value matches as a string. If it is also valid as a JSON number,
///   `true`, `false` or `null`, it matches that value as well. Numbers compare by
///   value (1 and 1.0). `null` matches only a null that is present.
///
/// ```
/// use eyego_log_core::query::MetadataFilter;
/// use serde_json::json;
///
/// let filter = MetadataFilter::new("cart.items", "2").unwrap();
/// for metadata in [
///     json!({"cart": {"items": 2}}),
///     json!({"cart": {"items": 2.0}}),
///     json!({"cart": {"items": "2"}}),
///     json!({"cart": {"items": [1, 2]}}),
///     json!({"cart.items": 2}),
/// ] {
///     assert!(filter.matches(metadata.as_object().unwrap()), "{metadata}");
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataFilter {
    path: MetadataPath,
    text: String,
    scalar: Option<Scalar>,
}

/// The JSON scalar that the text of a filter's value also represents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// A null that is present.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number without fraction or exponent that fits an `i64`.
    Integer(i64),
    /// Any other number.
    Float(f64),
}

impl MetadataFilter {
    /// Creates a filter that requires `value` at `path`, whose segments are
    /// separated by dots.
    ///
    /// # Errors
    /// Returns an error if `path` has more than [`MAX_PATH_SEGMENTS`](crate::limits::MAX_PATH_SEGMENTS) segments or
    /// contains U+0000.
    pub fn new(path: &str, value: &str) -> Result<Self, InvalidValue> {
        let path = MetadataPath::new(path)?;
        Ok(Self { path, text: value.to_owned(), scalar: parse_scalar(value) })
    }

    /// Returns the path as it was given.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Returns the number of ways to split the path into keys: 2 to the power of
    /// its dots.
    #[must_use]
    pub fn alternatives(&self) -> usize {
        1 << self.path().matches('.').count()
    }

    /// Returns the value as a string.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the JSON scalar that the value also represents, if any.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar> {
        self.scalar
    }

    /// Returns `true` if `metadata` matches the filter. Every store must return
    /// the same result.
    #[must_use]
    pub fn matches(&self, metadata: &serde_json::Map<String, Value>) -> bool {
        self.matches_below(metadata, self.path())
    }

    fn matches_below(&self, object: &serde_json::Map<String, Value>, path: &str) -> bool {
        let key_ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        for end in key_ends {
            let Some(member) = object.get(&path[..end]) else { continue };
            let rest = path.get(end + 1..);
            let found = match member {
                Value::Array(elements) => {
                    elements.iter().any(|element| self.matches_member(element, rest))
                }
                single => self.matches_member(single, rest),
            };
            if found {
                return true;
            }
        }
        false
    }

    fn matches_member(&self, member: &Value, rest: Option<&str>) -> bool {
        match (rest, member) {
            (Some(rest), Value::Object(object)) => self.matches_below(object, rest),
            (Some(_), _) => false,
            (None, value) => self.equals(value),
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match (value, self.scalar) {
            (Value::String(text), _) => *text == self.text,
            (Value::Null, Some(Scalar::Null)) => true,
            (Value::Bool(actual), Some(Scalar::Bool(expected))) => *actual == expected,
            (Value::Number(actual), Some(Scalar::Integer(expected))) => match actual.as_i64() {
                Some(actual) => actual == expected,
                None => actual.as_f64().is_some_and(|actual| float_is_integer(actual, expected)),
            },
            (Value::Number(actual), Some(Scalar::Float(expected))) => match actual.as_i64() {
                Some(actual) => float_is_integer(expected, actual),
                None => actual.as_f64() == Some(expected),
            },
            _ => false,
        }
    }
}

/// Compares by value, exactly: the integer 2^53 + 1 does not equal the float 2^53.
fn float_is_integer(float: f64, integer: i64) -> bool {
    // Whole floats in this range convert without loss. 2^63 itself is not an i64.
    const END: f64 = (1_u64 << 63) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "the float is whole and in range")]
    let whole = float.fract() == 0.0 && (-END..END).contains(&float) && float as i64 == integer;
    whole
}

fn parse_scalar(text: &str) -> Option<Scalar> {
    match serde_json::from_str(text).ok()? {
        // The JSON parser allows surrounding whitespace; a filter does not.
        _ if text.trim_ascii() != text => None,
        Value::Null => Some(Scalar::Null),
        Value::Bool(value) => Some(Scalar::Bool(value)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Some(Scalar::Integer(integer)),
            None => number.as_f64().map(Scalar::Float),
        },
        Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(metadata: &Value, path: &str, value: &str) -> bool {
        MetadataFilter::new(path, value).unwrap().matches(metadata.as_object().unwrap())
    }

    #[test]
    fn every_way_to_split_a_path_is_tried() {
        for metadata in [
            json!({"a": {"b": {"c": 1}}}),
            json!({"a.b": {"c": 1}}),
            json!({"a": {"b.c": 1}}),
            json!({"a.b.c": 1}),
            json!({"a": {"b": [{"c": 0}, {"c": [7, 1]}]}}),
        ] {
            assert!(matches(&metadata, "a.b.c", "1"), "{metadata}");
        }
        assert!(!matches(&json!({"a": {"b": {"c": {"d": 1}}}}), "a.b.c", "1"));
        assert!(!matches(&json!({"a": [[1]]}), "a", "1"), "arrays nested in arrays");
        assert!(matches(&json!({"": {"": 1}}), ".", "1"), "empty keys");
    }

    #[test]
    fn a_value_matches_as_a_scalar_and_as_a_string() {
        for (metadata, value, expected) in [
            (json!({"k": 1}), "1", true),
            (json!({"k": 1.0}), "1", true),
            (json!({"k": 1}), "1.0", true),
            (json!({"k": 1}), "1e0", true),
            (json!({"k": "1"}), "1", true),
            (json!({"k": "1"}), "1.0", false),
            (json!({"k": 1}), " 1", false),
            (json!({"k": 9_007_199_254_740_993_i64}), "9007199254740992.0", false),
            (json!({"k": i64::MAX}), "9223372036854775808", false),
            (json!({"k": true}), "true", true),
            (json!({"k": "true"}), "true", true),
            (json!({"k": null}), "null", true),
            (json!({"k": "null"}), "null", true),
            (json!({}), "null", false),
            (json!({"k": {}}), "{}", false),
        ] {
            assert_eq!(matches(&metadata, "k", value), expected, "{metadata} {value}");
        }
    }
}
