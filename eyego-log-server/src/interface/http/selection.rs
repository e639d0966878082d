//! The parameters of the reading routes: the filters of the list, and the ones
//! of the route.

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
    let mut filters = Vec::new();
    let parsed = parameters::parse(query, |name, value| {
        if is_filter(name) {
            filters.push((name.to_owned(), value.to_owned()));
            return Ok(());
        }
        own(name, value).unwrap_or_else(|| {
            Err(format!(
                "is not a known parameter of this route (those are userId, action, from, to, \
                 metadata.<path>, {names})"
            ))
        })
    });
    let filters = filters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    match (parsed, LogQuery::from_pairs(filters)) {
        (Ok(()), query) => query,
        (Err(errors), Ok(_)) => Err(errors),
        (Err(mut errors), Err(invalid)) => {
            invalid.into_iter().for_each(|error| errors.push(error));
            Err(errors)
        }
    }
}

fn is_filter(name: &str) -> bool {
    matches!(name, "userId" | "action" | "from" | "to") || name.starts_with("metadata.")
}
