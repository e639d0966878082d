//! The parameters of a query string.

use eyego_log_core::{FieldError, FieldErrors};

/// The parameters, percent-decoded.
///
/// # Errors
/// Those that are not percent-encoded UTF-8.
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, FieldErrors> {
    let mut faults = FieldErrors::new();
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (decode(name), decode(value)) {
            (Some(name), Some(value)) => pairs.push((name, value)),
            _ => faults.push(FieldError::new(name, "must be percent-encoded UTF-8")),
        }
    }
    if faults.is_empty() { Ok(pairs) } else { Err(faults) }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Gives each parameter to `set`, which answers the fault of its name or value.
///
/// # Errors
/// Every fault; a repeated parameter is one.
pub(super) fn read(
    query: Option<&str>,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), FieldErrors> {
    let mut faults = FieldErrors::new();
    let mut seen = Vec::new();
    for (name, value) in pairs(query.unwrap_or_default())? {
        let fault = if seen.contains(&name) {
            Err("must not be repeated".to_owned())
        } else {
            set(&name, &value)
        };
        if let Err(fault) = fault {
            faults.push(FieldError::new(name.as_str(), fault));
        }
        seen.push(name);
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// For a route that has no parameters.
///
/// # Errors
/// There is one.
pub(super) fn none(query: Option<&str>) -> Result<(), FieldErrors> {
    read(query, |_, _| Err("is not a known parameter (this route has none)".to_owned()))
}
