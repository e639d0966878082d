//! Query string parameters.

use eyego_log_core::FieldErrors;

/// Returns the names and values of the parameters, percent-decoded.
///
/// # Errors
/// Returns an error for each parameter that is not percent-encoded UTF-8.
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, FieldErrors> {
    let mut errors = FieldErrors::new();
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (decode(name), decode(value)) {
            (Some(name), Some(value)) => pairs.push((name, value)),
            _ => errors.add(name, "must be percent-encoded UTF-8"),
        }
    }
    if errors.is_empty() { Ok(pairs) } else { Err(errors) }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Passes each parameter to `set`, which returns the reason if the name or the
/// value is invalid.
///
/// # Errors
/// Returns all invalid parameters. A repeated parameter is invalid.
pub(super) fn parse(
    query: Option<&str>,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::new();
    let mut seen = Vec::new();
    for (name, value) in pairs(query.unwrap_or_default())? {
        let result = if seen.contains(&name) {
            Err("must not be repeated".to_owned())
        } else {
            set(&name, &value)
        };
        if let Err(reason) = result {
            errors.add(name.as_str(), reason);
        }
        seen.push(name);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Checks that a route without parameters got none.
///
/// # Errors
/// Returns an error for each parameter.
pub(super) fn expect_none(query: Option<&str>) -> Result<(), FieldErrors> {
    parse(query, |_, _| Err("is not a known parameter (this route takes none)".to_owned()))
}
