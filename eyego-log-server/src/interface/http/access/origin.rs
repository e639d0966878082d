//! Pages of other origins: which may use the API (CORS), and the refusal of all
//! others.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origins whose pages may use the API.
#[derive(Debug)]
pub(super) struct Origins(Vec<HeaderValue>);

impl Origins {
    pub(super) fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// Returns the origin of a request if it is listed.
    pub(super) fn listed<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        headers.get(ORIGIN).filter(|origin| self.0.contains(origin))
    }

    /// Checks the origin of a request that could change something.
    ///
    /// # Errors
    /// Returns the reason if the request comes from a page of another server, and
    /// that is not listed.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), String> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let headers = request.headers();
        let Some(origin) = headers.get(ORIGIN).filter(|_| !is_read) else { return Ok(()) };
        let is_repeated = headers.get_all(ORIGIN).iter().nth(1).is_some();
        let is_own = is_same_origin(headers) || is_own(origin, headers);
        if !is_repeated && (self.0.contains(origin) || is_own) {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or("unreadable").chars().take(100).collect::<String>();
        Err(format!(
            "pages of the origin `{origin}` may not use this server: EYEGO_CORS_ORIGINS lists the \
             origins that may"
        ))
    }
}

/// Returns whether the browser says that the page and this server have the same
/// origin. Pages cannot set this header. Unlike `Host`, proxies do not change it.
fn is_same_origin(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin")
}

/// Returns whether a page was loaded from the host that it sends the request to.
/// The scheme does not matter: a proxy may have terminated TLS.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin.split_once("://"), host) {
        (Some((scheme, authority)), Some(host)) => {
            matches!(scheme, "http" | "https")
                && !authority.is_empty()
                && authority.eq_ignore_ascii_case(host)
        }
        _ => false,
    }
}

/// Returns whether a browser asks whether it may send a request. It sends no
/// token with this question.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the response to a preflight request from an allowed origin.
pub(super) fn preflight_response() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, content-encoding, idempotency-key, last-event-id, \
             x-request-id",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers, Body::empty()).into_response()
}

/// Lets pages of `origin` read the response.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    let exposed = HeaderValue::from_static("retry-after, www-authenticate, x-request-id");
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, origin: &str) -> bool {
        let request = Request::builder()
            .method(method)
            .header(HOST, "logs.example:3000")
            .header(ORIGIN, origin)
            .body(())
            .unwrap();
        Origins::new(&["https://app.example".to_owned()]).check(&request).is_ok()
    }

    #[test]
    fn pages_of_other_origins_may_not_change_anything() {
        for origin in [
            "https://evil.example",
            "null",
            "http://logs.example",
            "https://app.example:8",
            "https://app.example.evil.example",
            "http://app.example",
            "logs.example:3000",
            "http://",
            "ftp://logs.example:3000",
        ] {
            assert!(!check(Method::POST, origin), "{origin}");
            assert!(!check(Method::DELETE, origin), "{origin}");
            assert!(!check(Method::OPTIONS, origin), "{origin}");
            assert!(check(Method::GET, origin), "{origin}");
        }
        for origin in
            ["https://app.example", "http://logs.example:3000", "https://LOGS.example:3000"]
        {
            assert!(check(Method::POST, origin), "{origin}");
        }
    }

    #[test]
    fn a_page_behind_a_proxy_that_changes_the_host_is_recognized() {
        let check = |site: &str| {
            let request = Request::post("/").header(HOST, "10.0.0.7").header(SEC_FETCH_SITE, site);
            let request = request.header(ORIGIN, "https://logs.example").body(()).unwrap();
            Origins::new(&[]).check(&request).is_ok()
        };
        assert!(check("same-origin"));
        for site in ["same-site", "cross-site", "none"] {
            assert!(!check(site), "{site}");
        }
    }

    #[test]
    fn only_listed_origins_may_read() {
        let origins = Origins::new(&["https://app.example".to_owned()]);
        let headers = |origin: &'static str| {
            HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))])
        };
        assert!(origins.listed(&headers("https://app.example")).is_some());
        assert!(origins.listed(&headers("https://evil.example")).is_none());
        assert!(origins.listed(&HeaderMap::new()).is_none());
    }
}
