//! A condition on metadata, and the rules by which it matches.

use serde_json::Value;

use crate::limits::MAX_PATH_SEGMENTS;

/// A condition on one path of the metadata.
///
/// The rules, which every store follows and [`matches`](Self::matches) states:
/// - `a.b` names the member `b` of the object `a`, and any member whose own key
///   has dots: each way to split the path is tried.
/// - On the way and at the end an array stands for each of its elements (of one
///   level).
/// - The value matches as the string that it is; where it reads as a JSON
///   number, `true`, `false` or `null` it matches that as well: numbers by
///   value (1 and 1.0), `null` only a present null.
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
    path: String,
    text: String,
    scalar: Option<Scalar>,
}

/// What the text of a filter's value reads as, besides being a string.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// A present null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number without fraction or exponent that an `i64` holds.
    Integer(i64),
    /// Any other number.
    Float(f64),
}

impl MetadataFilter {
    /// The condition that `value` stands at `path`, whose segments are
    /// separated by dots.
    ///
    /// # Errors
    /// The fault, as the end of a sentence that begins with the parameter's
    /// name.
    pub fn new(path: &str, value: &str) -> Result<Self, String> {
        if path.split('.').count() > MAX_PATH_SEGMENTS {
            return Err(format!("must have at most {MAX_PATH_SEGMENTS} segments after metadata"));
        }
        if path.contains('\0') {
            return Err("must not contain U+0000".to_owned());
        }
        Ok(Self { path: path.to_owned(), text: value.to_owned(), scalar: read_scalar(value) })
    }

    /// The path, as it was given.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value as a string.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What else the value reads as.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar> {
        self.scalar
    }

    /// Whether the metadata fulfils the condition: the rule that each store
    /// follows.
    #[must_use]
    pub fn matches(&self, metadata: &serde_json::Map<String, Value>) -> bool {
        self.matches_below(metadata, &self.path)
    }

    fn matches_below(&self, object: &serde_json::Map<String, Value>, path: &str) -> bool {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        for end in ends {
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
            (None, value) => self.is_value(value),
        }
    }

    fn is_value(&self, value: &Value) -> bool {
        match (value, self.scalar) {
            (Value::String(text), _) => *text == self.text,
            (Value::Null, Some(Scalar::Null)) => true,
            (Value::Bool(is), Some(Scalar::Bool(wanted))) => *is == wanted,
            (Value::Number(is), Some(Scalar::Integer(wanted))) => match is.as_i64() {
                Some(is) => is == wanted,
                None => is.as_f64().is_some_and(|is| float_is_integer(is, wanted)),
            },
            (Value::Number(is), Some(Scalar::Float(wanted))) => match is.as_i64() {
                Some(is) => float_is_integer(wanted, is),
                None => is.as_f64() == Some(wanted),
            },
            _ => false,
        }
    }
}

/// Compares by value, exactly: 2^53 + 1 is not the float 2^53.
fn float_is_integer(float: f64, integer: i64) -> bool {
    // Each float in this range is converted without loss; 2^63 itself is
    // outside, and no i64.
    const END: f64 = (1_u64 << 63) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    let whole = float.fract() == 0.0 && (-END..END).contains(&float) && float as i64 == integer;
    whole
}

fn read_scalar(text: &str) -> Option<Scalar> {
    match serde_json::from_str(text).ok()? {
        // "Reads as" means the whole text: JSON's parser also allows blanks
        // around it.
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
    fn each_way_to_split_a_path_is_tried() {
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
        assert!(!matches(&json!({"a": [[1]]}), "a", "1"), "arrays of one level");
        assert!(matches(&json!({"": {"": 1}}), ".", "1"), "empty keys");
    }

    #[test]
    fn a_value_matches_as_what_it_reads_as_and_as_a_string() {
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
