//! Splits the body of a batch into its items. They are validated later.

use std::fmt;

use eyego_log_core::wire::SyntaxError;
use eyego_log_core::{FieldErrors, ParseError, wire};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ApiError;

/// A byte order mark, which some programs write at the beginning of UTF-8 text.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The first items of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct Items<'a> {
    /// The items up to the limit.
    pub(super) items: Vec<&'a [u8]>,
    /// Number of all items of the body.
    pub(super) count: usize,
}

impl<'a> Items<'a> {
    fn new() -> Self {
        Self { items: Vec::new(), count: 0 }
    }

    /// Collects an item if fewer than `max` are, and counts it.
    fn push(&mut self, item: &'a [u8], max: usize) {
        if self.count < max {
            self.items.push(item);
        }
        self.count += 1;
    }
}

/// Returns the first `max` lines of an NDJSON body that are not blank, without a
/// leading byte order mark.
pub(super) fn lines(bytes: &[u8], max: usize) -> Items<'_> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    let mut lines = Items::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        let line = bytes[start..end].trim_ascii();
        if !line.is_empty() {
            lines.push(line, max);
        }
        start = end + 1;
    }
    lines
}

/// Returns the first `max` elements of `[…]` or `{"logs": […]}`, each as JSON text.
///
/// # Errors
/// Returns an error if the body is not JSON or has another shape.
pub(super) fn elements(bytes: &[u8], max: usize) -> Result<Items<'_>, ApiError> {
    let syntax = |error: SyntaxError| ApiError::from(ParseError::Syntax(error));
    let not_json = |error: serde_json::Error| syntax(SyntaxError::from_json(&error));

    let text = wire::body_text(bytes).map_err(syntax)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    let list = match raw.get().as_bytes().first() {
        Some(b'[') => raw,
        Some(b'{') => logs_field(raw)?,
        _ => {
            let message = "the body must be an array of events or {\"logs\": […]}";
            return Err(ApiError::invalid(message));
        }
    };
    let mut deserializer = serde_json::Deserializer::from_str(list.get());
    deserializer.deserialize_seq(Elements { max }).map_err(not_json)
}

/// Visits the elements of an array.
struct Elements {
    max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Items<'de>, A::Error> {
        let mut items = Items::new();
        while let Some(element) = elements.next_element::<&RawValue>()? {
            items.push(element.get().as_bytes(), self.max);
        }
        Ok(items)
    }
}

const NOT_LOGS: &str = "is not a known field (the body is {\"logs\": […]}, an array of events, or, as \
                        application/x-ndjson, one event per line)";

fn logs_field(raw: &RawValue) -> Result<&RawValue, ApiError> {
    let mut errors = FieldErrors::new();
    let mut logs = None;
    wire::for_each_member(raw, |name, value| {
        if name != "logs" {
            errors.add(name, NOT_LOGS);
        } else if logs.replace(value).is_some() {
            errors.add("logs", "must not be repeated");
        }
    });
    match logs {
        Some(logs) if !logs.get().starts_with('[') => {
            errors.add("logs", "must be an array");
        }
        None => errors.add("logs", "is required: an array of events"),
        Some(logs) if errors.is_empty() => return Ok(logs),
        Some(_) => {}
    }
    Err(errors.into())
}

/// Splits any bytes, for this repository's fuzz targets.
///
/// # Panics
/// Panics if a line is blank or contains a line break, or if an item is not JSON.
#[cfg(feature = "fuzzing")]
pub fn fuzz_batch(bytes: &[u8]) {
    const MAX: usize = 1000;

    let lines = lines(bytes, MAX);
    assert!(lines.items.len() == lines.count.min(MAX));
    for line in lines.items {
        assert!(!line.is_empty() && !line.contains(&b'\n'));
    }
    let Ok(elements) = elements(bytes, MAX) else { return };
    assert!(elements.items.len() == elements.count.min(MAX));
    for item in elements.items {
        let parsed = serde_json::from_slice::<&RawValue>(item);
        assert!(parsed.is_ok(), "an item is not JSON");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_beyond_the_limit() {
        let body = b"\xEF\xBB\xBF{\"a\":1}\r\n\n  \n{}\n[]";
        assert_eq!(lines(body, 2), Items { items: vec![b"{\"a\":1}", b"{}"], count: 3 });
        assert_eq!(lines(body, 9).items.len(), 3);
        assert_eq!(lines(b"\xEF\xBB\xBF\n", 2).count, 0);
        let many = lines(&b"1\n".repeat(100_000)[..], 10).count;
        assert_eq!(many, 100_000);
    }

    #[test]
    fn elements_are_counted_beyond_the_limit() {
        for body in ["[1, {\"a\": [2, 3]}, 4]", "{\"logs\": [1, {\"a\": [2, 3]}, 4]}"] {
            let Ok(items) = elements(body.as_bytes(), 2) else { panic!("{body}") };
            assert_eq!(items, Items { items: vec![b"1", b"{\"a\": [2, 3]}"], count: 3 });
        }
        assert_eq!(elements(b"[]", 2).ok().map(|items| items.count), Some(0));
    }
}
