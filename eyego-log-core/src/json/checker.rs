//! The fast pass: tells whether JSON text is certainly valid.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Rules, Text};

/// 2^63. A number this large that a visitor gets as a float may be written as an
/// integer in the text.
const INTEGER_LIMIT: f64 = (1_u64 << 63) as f64;

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
