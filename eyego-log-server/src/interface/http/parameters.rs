//! Query string parameters.

use std::collections::HashSet;

use eyego_log_core::limits::MAX_PARAMETERS;
use eyego_log_core::{FieldError, FieldErrors};

/// Returns the names and values of the parameters, percent-decoded.
///
/// # Errors
/// Returns an error for each parameter that is not percent-encoded UTF-8, or one
/// error if there are too many parameters.
pub(super) fn pairs(query: &str) -> Result<Vec<(String, String)>, FieldErrors> {
    let parameters = || query.split('&').filter(|pair| !pair.is_empty());
    let count = parameters().count();
    if count > MAX_PARAMETERS {
        let message = format!("a query may have at most {MAX_PARAMETERS} parameters, not {count}");
        return Err(FieldError::of_input(message).into());
    }
    let mut errors = FieldErrors::new();
    let mut pairs = Vec::with_capacity(count);
    for pair in parameters() {
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
    let pairs = pairs(query.unwrap_or_default())?;
    let mut seen = HashSet::new();
    for (name, value) in &pairs {
        let result = if seen.insert(name) {
            set(name, value)
        } else {
            Err("must not be repeated".to_owned())
        };
        if let Err(reason) = result {
            errors.add(name, reason);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_before_they_are_decoded() {
        let query = |count: usize| (0..count).map(|n| format!("{n:04x}&&")).collect::<String>();
        assert_eq!(pairs(&query(100)).unwrap().len(), 100);
        let errors = expect_none(Some(&query(12_900))).unwrap_err();
        assert_eq!(errors.to_string(), "a query may have at most 100 parameters, not 12900");
        assert_eq!(expect_none(Some(&query(100))).unwrap_err().total(), 100);
        assert!(pairs("%FF").is_err());
    }

    #[test]
    fn a_repeated_parameter_is_an_error() {
        let errors = parse(Some("a=1&b=2&%61=3"), |_, _| Ok(())).unwrap_err();
        assert_eq!(errors.to_string(), "a must not be repeated");
    }
}
