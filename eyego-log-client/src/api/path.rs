//! The path and query string of a request, and the cursor of a response.

use std::fmt::{self, Write as _};

use eyego_log_core::query::Cursor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::errors::RequestError;

/// The characters to percent-encode.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends parameters to a path.
pub(super) fn with_query<N: AsRef<str>>(path: &str, parameters: &[(N, String)]) -> String {
    let mut path = path.to_owned();
    for (index, (name, value)) in parameters.iter().enumerate() {
        let separator = if index == 0 { '?' } else { '&' };
        // Writing to a string cannot fail.
        let _ = write!(path, "{separator}{}={}", encode(name.as_ref()), encode(value));
    }
    path
}

/// Sets a parameter, and replaces an earlier value of it.
pub(super) fn set(parameters: &mut Vec<(&'static str, String)>, name: &'static str, value: String) {
    parameters.retain(|(other, _)| *other != name);
    parameters.push((name, value));
}

/// Percent-encodes a segment of a path or a part of a query string.
pub(super) fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// Parses the `nextCursor` of a response.
pub(super) fn next_cursor(text: Option<String>) -> Result<Option<Cursor>, RequestError> {
    let cursor = text.map(|text| text.parse()).transpose();
    cursor.map_err(|error| RequestError::UnexpectedResponse(format!("nextCursor {error}")))
}
