//! What no store could give back, found in JSON text.
//!
//! `serde_json` accepts text that loses something on its way through a store:
//! a repeated key, an integer beyond `i64`, a key with U+0000; and its
//! `RawValue` even a lone surrogate or `1e999`. Two passes look for that. The
//! fast one ([`is_plain`]) answers yes or "look closer" without an allocation
//! for each value; the slow one ([`faults`]) finds every fault and its path.
//! Neither holds the text to be good where the other would not: what the fast
//! pass accepts has no fault, and the slow pass has the last word.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::field::{FieldError, FieldErrors, Path};

/// Past this many faults the list says no more than that there are more.
const MAX_FAULTS: usize = 100;

/// Integers from here on (2^63) reach a visitor as floats: look closer.
const INTEGERS_MAY_END: f64 = (1_u64 << 63) as f64;

/// What counts as a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Levels of objects and arrays, the outermost included.
    pub(crate) max_depth: usize,
    /// A repeated key is one; else the last of them wins.
    pub(crate) unique_keys: bool,
    /// An integer that is a float written in full (as JavaScript writes
    /// 12345678901234567000) is one too; else only what a float would change.
    pub(crate) exact_integers: bool,
}

/// Whether the value that is this text is free of faults. A "no" may be wrong
/// (a float above 2^63): then [`faults`] finds none.
pub(crate) fn is_plain(text: &str, rules: Rules) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut keys = Vec::new();
    Checker { depth_left: rules.max_depth, keys: &mut keys }.deserialize(&mut deserializer).is_ok()
}

/// Walks a value and fails at the first thing that may be a fault.
struct Checker<'k, 'de> {
    depth_left: usize,
    /// The keys of all objects that the walk is inside of, outermost first.
    keys: &'k mut Vec<Cow<'de, str>>,
}

impl<'de> Checker<'_, 'de> {
    fn inside(&mut self) -> Option<Checker<'_, 'de>> {
        let depth_left = self.depth_left.checked_sub(1)?;
        Some(Checker { depth_left, keys: self.keys })
    }
}

/// The fast pass has no message: the slow one writes it.
fn look_closer<E: de::Error>() -> E {
    E::custom("look closer")
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
        i64::try_from(number).map(drop).map_err(|_| look_closer())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if number.abs() < INTEGERS_MAY_END { Ok(()) } else { Err(look_closer()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        loop {
            let element = self.inside().ok_or_else(look_closer)?;
            if elements.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        /// Up to here comparing beats hashing.
        const FEW: usize = 16;

        let first = self.keys.len();
        let mut many = HashSet::new();
        while let Some(Text(key)) = members.next_key()? {
            let earlier = &self.keys[first..];
            let repeated = if earlier.len() < FEW {
                earlier.contains(&key)
            } else {
                if many.is_empty() {
                    many.extend(earlier.iter().cloned());
                }
                !many.insert(key.clone())
            };
            if repeated || key.contains('\0') {
                return Err(look_closer());
            }
            self.keys.push(key);
            members.next_value_seed(self.inside().ok_or_else(look_closer)?)?;
        }
        if self.depth_left == 0 {
            return Err(look_closer());
        }
        self.keys.truncate(first);
        Ok(())
    }
}

/// A string, borrowed from the text where it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The members of an object, each as its text; repeated keys are kept.
pub(crate) struct Members<'a>(pub(crate) Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsMembers;

        impl<'de> Visitor<'de> for AsMembers {
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

        deserializer.deserialize_map(AsMembers)
    }
}

/// The text of a JSON string; `None` when it has a lone surrogate, the one
/// fault that the syntax check of a `RawValue` leaves.
pub(crate) fn unquote(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// Adds every fault of `value`, which stands at `path` with `depth` levels
/// around it. Answers whether an object in it repeats a key.
pub(crate) fn faults(
    value: &RawValue,
    path: Path<'_>,
    depth: usize,
    rules: Rules,
    found: &mut FieldErrors,
) -> bool {
    if found.len() >= MAX_FAULTS {
        return false;
    }
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth >= rules.max_depth => {
            let max = rules.max_depth;
            push(found, path, format!("must not be nested deeper than {max} levels"));
            false
        }
        Some(b'{') => object_faults(text, path, depth, rules, found),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            let mut repeats = false;
            for (index, element) in elements.into_iter().enumerate() {
                let path = Path::Index(&path, index);
                repeats |= faults(element, path, depth + 1, rules, found);
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
            if let Some(fault) = number_fault(text, rules) {
                push(found, path, fault);
            }
            false
        }
        _ => false,
    }
}

pub(crate) const LONE_SURROGATE: &str =
    "must not contain a lone surrogate (\\ud800 to \\udfff without the other half of its pair)";

fn object_faults(
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
        repeats |= faults(value, path, depth + 1, rules, found);
    }
    repeats
}

fn number_fault(text: &str, rules: Rules) -> Option<&'static str> {
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

fn push(found: &mut FieldErrors, path: Path<'_>, fault: impl fmt::Display) {
    match found.len() {
        n if n + 1 < MAX_FAULTS => found.push(FieldError::new(path.to_string(), fault)),
        n if n + 1 == MAX_FAULTS => found.push(FieldError {
            path: path.to_string(),
            message: format!("there are more faults than the {MAX_FAULTS} listed here"),
        }),
        _ => {}
    }
}
