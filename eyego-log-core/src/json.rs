//! Finds values in JSON text that no store could return unchanged.
//!
//! `serde_json` accepts JSON that would change in a store: repeated keys,
//! integers outside `i64`, keys with U+0000. Its `RawValue` even accepts lone
//! surrogates and `1e999`. Two passes check for them. The fast pass
//! ([`is_plain`]) only tells whether the text is certainly valid, without an
//! allocation per value. The slow pass ([`find_errors`]) finds every error and
//! its path, and decides. Both visit each byte once.

mod checker;
mod scanner;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use checker::is_plain;
pub(crate) use scanner::find_errors;

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

/// A JSON string, borrowed from the text if it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Calls `visit` with the name and the value of each member of a JSON object, in
/// their order and with repeated names. A name that contains a lone surrogate is
/// passed as its JSON text. Calls nothing if `raw` is not an object.
pub(crate) fn for_each_member<'a>(
    raw: &'a RawValue,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue),
) {
    for_each_readable_member(raw.get(), visit);
}

/// Like [`for_each_member`], for text that may not be valid JSON: visits the members
/// before the first error.
pub(crate) fn for_each_readable_member<'a>(
    text: &'a str,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue),
) {
    struct Members<F>(F);

    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Members<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                (self.0)(unquote(name).unwrap_or(Cow::Borrowed(name.get())), value);
            }
            Ok(())
        }
    }

    // The error is that the text is not an object, or not valid from there on.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(Members(visit));
}

/// Returns the text of a JSON string, or `None` if it contains a lone surrogate,
/// which `RawValue` does not check.
pub(crate) fn unquote(raw: &RawValue) -> Option<Cow<'_, str>> {
    unquote_text(raw.get())
}

fn unquote_text(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(text).ok().map(|text| text.0)
}

pub(crate) const LONE_SURROGATE: &str =
    "must not contain a lone surrogate (\\ud800 to \\udfff without the other half of its pair)";
