//! Splits the body of a batch into its items. They are validated later.

use eyego_log_core::wire::SyntaxError;
use eyego_log_core::{FieldErrors, ParseError, wire};
use serde_json::value::RawValue;

use super::error::ApiError;

/// Returns the lines of an NDJSON body that are not blank.
pub(super) fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        let line = bytes[start..end].trim_ascii();
        if !line.is_empty() {
            lines.push(line);
        }
        start = end + 1;
    }
    lines
}

/// Returns the elements of `[…]` or `{"logs": […]}`, each as JSON text.
///
/// # Errors
/// Returns an error if the body is not JSON or has another shape.
pub(super) fn elements(bytes: &[u8]) -> Result<Vec<&[u8]>, ApiError> {
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
    let items: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(not_json)?;
    Ok(items.into_iter().map(|item| item.get().as_bytes()).collect())
}

fn logs_field(raw: &RawValue) -> Result<&RawValue, ApiError> {
    let mut errors = FieldErrors::new();
    let mut logs = None;
    wire::for_each_member(raw, |name, value| {
        if name != "logs" {
            errors.add(name, "is not a known field (the body is {\"logs\": […]})");
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
    for line in lines(bytes) {
        assert!(!line.is_empty() && !line.contains(&b'\n'));
    }
    let Ok(items) = elements(bytes) else { return };
    for item in items {
        let parsed = serde_json::from_slice::<&RawValue>(item);
        assert!(parsed.is_ok(), "an item is not JSON");
    }
}
