//! The parameters of a tail.

use eyego_log_core::limits::MAX_LIMIT;
use eyego_log_core::{FieldError, FieldErrors, LogQuery};
use http::{HeaderMap, HeaderName};

use crate::application::tail::TailStart;
use crate::interface::http::selection;

/// The header in which a browser sends the id of the last event when it reconnects.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Maximum size of a token, in bytes.
pub(in crate::interface::http) const MAX_TOKEN_BYTES: usize = 2048;

/// Parses the filters, and where to start.
///
/// # Errors
/// Returns all parameters that are invalid, unknown or repeated.
pub(super) fn parse(
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(LogQuery, TailStart), FieldErrors> {
    let (mut last, mut after) = (None, None);
    let filter = selection::parse(query, "last, after", |name, value| match name {
        "last" => {
            last = value.parse().ok().filter(|last| *last <= MAX_LIMIT);
            let message = || format!("must be a whole number from 0 to {MAX_LIMIT}");
            Some(last.map(|_| ()).ok_or_else(message))
        }
        "after" if value.is_empty() || value.len() > MAX_TOKEN_BYTES => {
            Some(Err("must be the id of an event of this tail, unchanged".to_owned()))
        }
        "after" => {
            after = Some(value.to_owned());
            Some(Ok(()))
        }
        _ => None,
    })?;
    if after.is_some() && last.is_some() {
        let reason =
            "must not be combined with after: a tail starts with stored events, or resumes";
        return Err(FieldError::new("last", reason).into());
    }
    // A browser that reconnects sends the parameters of the first request, too.
    let start = match last_event_id(headers)?.or(after) {
        Some(token) => TailStart::After(token),
        None => TailStart::Last(last.unwrap_or(0)),
    };
    Ok((filter, start))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, FieldErrors> {
    let error = |reason: &str| FieldErrors::from(FieldError::new("Last-Event-ID", reason));
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(error("must not be repeated"));
    }
    match first.map(|value| value.to_str()) {
        Some(Ok(token)) if token.len() <= MAX_TOKEN_BYTES => {
            Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
        }
        Some(_) => Err(error("must be the id of an event of this tail, unchanged")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn start(query: &str, ids: &[&str]) -> Result<TailStart, String> {
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append(LAST_EVENT_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
        }
        parse(Some(query), &headers).map(|(_, start)| start).map_err(|error| error.to_string())
    }

    #[test]
    fn header_takes_precedence_over_what_the_first_request_asked_for() {
        let after = |token: &str| Ok(TailStart::After(token.to_owned()));
        assert_eq!(start("", &[]), Ok(TailStart::Last(0)));
        assert_eq!(start("last=1000", &[""]), Ok(TailStart::Last(1000)));
        assert_eq!(start("after=t", &[]), after("t"));
        assert_eq!(start("last=50", &["u"]), after("u"));
        assert_eq!(start("after=t", &["u"]), after("u"));
    }

    #[test]
    fn each_invalid_parameter_says_what_is_possible() {
        let long = format!("after={}", "x".repeat(3000));
        for (query, ids, message) in [
            ("last=1001", &[][..], "last must be a whole number from 0 to 1000"),
            ("last=-1", &[], "last must be a whole number from 0 to 1000"),
            ("last=", &[], "last must be a whole number from 0 to 1000"),
            ("last=1&last=1", &[], "last must not be repeated"),
            ("last=1&after=t", &[], "last must not be combined with after"),
            ("after=", &[], "after must be the id of an event of this tail, unchanged"),
            (&long, &[], "after must be the id of an event of this tail, unchanged"),
            ("", &["a", "b"], "Last-Event-ID must not be repeated"),
            ("", &["\u{e9}"], "Last-Event-ID must be the id of an event"),
            ("limit=5", &[], "limit is not a known parameter of this route (those are userId"),
            ("order=asc", &[], "order is not a known parameter"),
            ("userId=", &[], "userId must not be empty"),
        ] {
            let error = start(query, ids).unwrap_err();
            assert!(error.starts_with(message), "{query}: {error}");
        }
    }
}
