//! Finds values in JSON text that no store could return unchanged.
//!
//! `serde_json` accepts JSON that would change in a store: repeated keys,
//! integers outside `i64`, keys with U+0000. Its `RawValue` even accepts lone
//! surrogates and `1e999`. Two passes check for them. The fast pass
//! ([`is_plain`]) only tells whether the text is certainly valid, without an
//! allocation per value. The slow pass ([`find_errors`]) finds every error and
//! its path, and decides.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::field::{FieldError, FieldErrors, Path};

/// Maximum number of errors in the list. The last one says that there are more.
const MAX_ERRORS: usize = 100;

/// 2^63. A number this large that a visitor gets as a float may be written as an
/// integer in the text.
const INTEGER_LIMIT: f64 = (1_u64 << 63) as f64;

/// What counts as an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Maximum number of nested objects and arrays, including the outermost.
    pub(crate) max_depth: usize,
    /// Whether a repeated key is an error. If not, its last value counts.
    pub(crate) unique_keys: bool,
    /// Whether every integer outside `i64` is an error. If not, an integer that
    /// is a float written in full (JavaScript writes 12345678901234567000) is
    /// valid.
    pub(crate) exact_integers: bool,
}

/// Returns `true` if the JSON value has no errors. `false` means that it may have
/// errors: for a float above 2^63, [`find_errors`] finds none.
pub(crate) fn is_plain(text: &str, rules: Rules) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut keys = Vec::new();
    Checker { depth_left: rules.max_depth, keys: &mut keys }.deserialize(&mut deserializer).is_ok()
}

/// Visits a value and fails at the first possible error.
struct Checker<'k, 'de> {
    depth_left: usize,
    /// Keys of all enclosing objects, outermost first.
    keys: &'k mut Vec<Cow<'de, str>>,
}

impl<'de> Checker<'_, 'de> {
    fn nested(&mut self) -> Option<Checker<'_, 'de>> {
        let depth_left = self.depth_left.checked_sub(1)?;
        Some(Checker { depth_left, keys: self.keys })
    }
}

/// Fails the fast pass. The message is never shown.
fn possible_error<E: de::Error>() -> E {
    E::custom("possible error")
}

impl<'de> DeserializeSeed<'de> for Checker<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checker<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        i64::try_from(number).map(drop).map_err(|_| possible_error())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if number.abs() < INTEGER_LIMIT { Ok(()) } else { Err(possible_error()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        loop {
            let element = self.nested().ok_or_else(possible_error)?;
            if elements.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        /// For fewer keys, comparing is faster than hashing.
        const MIN_KEYS_TO_HASH: usize = 16;

        let first = self.keys.len();
        let mut hashed = HashSet::new();
        while let Some(Text(key)) = members.next_key()? {
            let earlier = &self.keys[first..];
            let repeated = if earlier.len() < MIN_KEYS_TO_HASH {
                earlier.contains(&key)
            } else {
                if hashed.is_empty() {
                    hashed.extend(earlier.iter().cloned());
                }
                !hashed.insert(key.clone())
            };
            if repeated || key.contains('\0') {
                return Err(possible_error());
            }
            self.keys.push(key);
            members.next_value_seed(self.nested().ok_or_else(possible_error)?)?;
        }
        if self.depth_left == 0 {
            return Err(possible_error());
        }
        self.keys.truncate(first);
        Ok(())
    }
}

/// A JSON string, borrowed from the text if it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Members of a JSON object as text, including repeated keys.
pub(crate) struct Members<'a>(pub(crate) Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Returns the text of a JSON string, or `None` if it contains a lone surrogate,
/// which `RawValue` does not check.
pub(crate) fn unquote(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// Appends every error in `value`, which is at `path` and has `depth` enclosing
/// levels, to `found`. Returns `true` if an object in it repeats a key.
pub(crate) fn find_errors(
    value: &RawValue,
    path: Path<'_>,
    depth: usize,
    rules: Rules,
    found: &mut FieldErrors,
) -> bool {
    if found.len() >= MAX_ERRORS {
        return false;
    }
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth >= rules.max_depth => {
            let max = rules.max_depth;
            push(found, path, format!("must not be nested deeper than {max} levels"));
            false
        }
        Some(b'{') => find_errors_in_object(text, path, depth, rules, found),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            let mut repeats = false;
            for (index, element) in elements.into_iter().enumerate() {
                let path = Path::Index(&path, index);
                repeats |= find_errors(element, path, depth + 1, rules, found);
            }
            repeats
        }
        Some(b'"') => {
            if unquote(value).is_none() {
                push(found, path, LONE_SURROGATE);
            }
            false
        }
        Some(b'-' | b'0'..=b'9') => {
            if let Some(reason) = check_number(text, rules) {
                push(found, path, reason);
            }
            false
        }
        _ => false,
    }
}

pub(crate) const LONE_SURROGATE: &str =
    "must not contain a lone surrogate (\\ud800 to \\udfff without the other half of its pair)";

fn find_errors_in_object(
    text: &str,
    path: Path<'_>,
    depth: usize,
    rules: Rules,
    found: &mut FieldErrors,
) -> bool {
    let Members(members) = serde_json::from_str(text).unwrap_or(Members(Vec::new()));
    let mut seen = HashSet::new();
    let mut repeats = false;
    for (raw_key, value) in members {
        let key = unquote(raw_key);
        let path = Path::Key(&path, key.as_deref().unwrap_or(raw_key.get()));
        match &key {
            None => push(found, path, format!("is a key that {LONE_SURROGATE}")),
            Some(key) if key.contains('\0') => {
                push(found, path, "is a key that must not contain U+0000");
            }
            Some(_) => {}
        }
        if key.as_ref().is_some_and(|key| !seen.insert(key.clone())) {
            repeats = true;
            if rules.unique_keys {
                push(found, path, "must not be repeated in its object");
            }
        }
        repeats |= find_errors(value, path, depth + 1, rules, found);
    }
    repeats
}

fn check_number(text: &str, rules: Rules) -> Option<&'static str> {
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer && text.parse::<i64>().is_ok() {
        return None;
    }
    let as_float: f64 = text.parse().unwrap_or(f64::INFINITY);
    if !as_float.is_finite() {
        return Some("must be a number that a 64-bit float can hold; send it as a string");
    }
    if is_integer && (rules.exact_integers || format!("{as_float}") != text) {
        return Some(
            "must be an integer from -9223372036854775808 to 9223372036854775807; \
             send a larger one as a string",
        );
    }
    None
}

fn push(found: &mut FieldErrors, path: Path<'_>, reason: impl fmt::Display) {
    match found.len() {
        n if n + 1 < MAX_ERRORS => found.push(FieldError::new(path.to_string(), reason)),
        n if n + 1 == MAX_ERRORS => found.push(FieldError {
            path: path.to_string(),
            message: format!("there are more errors than the {MAX_ERRORS} listed here"),
        }),
        _ => {}
    }
}
