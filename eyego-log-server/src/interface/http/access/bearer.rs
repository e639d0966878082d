//! The token of a request: `Authorization: Bearer <token>`.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::application::access::is_token;

/// Message for a token in the query string.
pub(super) const IN_QUERY: &str = "a token in the query string is not accepted and may now be in logs: replace the token, and \
     send the new one as `Authorization: Bearer <token>`";

/// Parameters by which other systems accept a token.
const PARAMETERS: [&str; 3] = ["access_token", "api_key", "token"];

/// Returns the token of a request.
///
/// # Errors
/// Returns the reason if there is none.
pub(super) fn token(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or("a token is required: send `Authorization: Bearer <token>`")?;
    if values.next().is_some() {
        return Err("the Authorization header must not be repeated");
    }
    let malformed = "the Authorization header is malformed: expected `Bearer <token>`";
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed);
    }
    Ok(token.trim_matches(' '))
}

/// Returns whether a query string contains a token.
pub(super) fn query_has_token(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        PARAMETERS.contains(&&*decode(name)) || is_token(&decode(value))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> Result<String, &'static str> {
        let values = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        token(&headers).map(str::to_owned)
    }

    #[test]
    fn only_one_bearer_token_is_read() {
        assert_eq!(of(&["Bearer x"]).as_deref(), Ok("x"));
        assert_eq!(of(&["bearer  x"]).as_deref(), Ok("x"));
        for values in [&[][..], &["x"], &["Basic eDp5"], &["Bearer"], &["Bearer x", "Bearer y"]] {
            assert!(of(values).is_err(), "{values:?}");
        }
    }

    #[test]
    fn a_token_in_the_query_string_is_found() {
        let token = format!("eyego_web_{}", "x".repeat(43));
        for query in [
            format!("limit=1&x={token}"),
            token.clone(),
            token.replacen('e', "%65", 1),
            "access_token=abc".to_owned(),
            "limit=1&api%5Fkey=".to_owned(),
        ] {
            assert!(query_has_token(Some(&query)), "{query}");
        }
        for query in [None, Some(""), Some("userId=eyego_web_x&limit=1"), Some("action=token")] {
            assert!(!query_has_token(query), "{query:?}");
        }
    }
}
