//! JSON text of a request body, before its fields are parsed.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json;

/// The reason a request body is not JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxError {
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8 at byte {valid_up_to}")]
    NotUtf8 {
        /// Number of bytes before the invalid one.
        valid_up_to: usize,
    },
    /// The body is empty.
    #[error("the body is empty: send a JSON object")]
    Empty,
    /// The body is not JSON.
    #[error("not valid JSON at line {line} column {column}: {message}")]
    NotJson {
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error in bytes, from 1.
        column: usize,
        /// Description of the error, without its position.
        message: String,
    },
}

impl SyntaxError {
    /// Converts an error of `serde_json`.
    #[must_use]
    pub fn from_json(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let mut message = message.strip_suffix(&position).unwrap_or(&message).to_owned();
        if message == "trailing characters" {
            message.push_str(
                " (several events, one per line, are a batch of the type application/x-ndjson)",
            );
        }
        Self::NotJson { line: error.line(), column: error.column(), message }
    }
}

/// Returns the body as text.
///
/// # Errors
/// Returns an error if the body is not UTF-8 or is empty.
pub fn body_text(bytes: &[u8]) -> Result<&str, SyntaxError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| SyntaxError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    if text.trim_ascii().is_empty() { Err(SyntaxError::Empty) } else { Ok(text) }
}

/// Calls `visit` with the name and the value, as text, of each member of a JSON
/// object, in their order and with repeated names. Calls nothing if `raw` is not
/// an object. Nothing is collected, because a body can have millions of members.
pub fn for_each_member<'a>(raw: &'a RawValue, visit: impl FnMut(Cow<'a, str>, &'a RawValue)) {
    json::for_each_member(raw, visit);
}
