//! The parameters of the reading routes: the filters of the list, and the ones
//! of the route.

use std::collections::HashSet;

use eyego_log_core::{FieldErrors, LogQuery};

use super::parameters;

/// Parses the filters. Other parameters are passed to `own`, which returns `None`
/// for a name that it does not know, or else the reason the value is invalid.
/// `names` lists them for the message about an unknown one.
///
/// # Errors
/// Returns all parameters that are invalid, unknown or repeated.
pub(super) fn parse(
    query: Option<&str>,
    names: &str,
    mut own: impl FnMut(&str, &str) -> Option<Result<(), String>>,
) -> Result<LogQuery, FieldErrors> {
    let pairs = parameters::pairs(query.unwrap_or_default())?;
    let mut errors = FieldErrors::new();
    let mut filters = Vec::new();
    let mut seen = HashSet::new();
    for (name, value) in &pairs {
        if is_filter(name) {
            filters.push((name.as_str(), value.as_str()));
        } else if !seen.insert(name) {
            errors.add(name, "must not be repeated");
        } else {
            match own(name, value) {
                Some(Ok(())) => {}
                Some(Err(reason)) => errors.add(name, reason),
                None => errors.add(
                    name,
                    format_args!(
                        "is not a known parameter of this route (those are userId, action, from, \
                         to, metadata.<path>, {names})"
                    ),
                ),
            }
        }
    }
    match LogQuery::from_pairs(filters) {
        Ok(query) if errors.is_empty() => return Ok(query),
        Ok(_) => {}
        Err(invalid) => invalid.into_iter().for_each(|error| errors.push(error)),
    }
    Err(errors)
}

fn is_filter(name: &str) -> bool {
    matches!(name, "userId" | "action" | "from" | "to") || name.starts_with("metadata.")
}
