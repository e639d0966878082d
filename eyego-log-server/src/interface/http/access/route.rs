//! The scope that each route requires. A test compares this table with the router.

use http::{Method, Uri};

use crate::domain::access::Scope;

const BATCH: &str = "/api/v1/logs/batch";
const TAIL: &str = "/api/v1/logs/tail";

/// What a request needs where keys are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requirement {
    /// Nothing: health, and the pages, which contain no data.
    Open,
    /// A valid key: the route or the method does not exist.
    AnyKey,
    /// A key with this scope.
    Scope(Scope),
}

impl Requirement {
    /// Returns whether the audit log mentions requests that are served.
    pub(super) fn is_audited(self) -> bool {
        matches!(self, Self::Scope(Scope::Read | Scope::Erase | Scope::Admin))
    }
}

/// Returns what a request needs.
pub(super) fn requirement(method: &Method, path: &str) -> Requirement {
    let is_page =
        matches!(path, "/" | "/docs" | "/docs/" | "/openapi.json") || path.starts_with("/assets/");
    if is_page || matches!(path, "/health/live" | "/health/ready") {
        return Requirement::Open;
    }
    if path == "/metrics" {
        return Requirement::Scope(Scope::Metrics);
    }
    let Some(route) = path.strip_prefix("/api/v1/") else { return Requirement::AnyKey };
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_post = *method == Method::POST;
    match route.split('/').next().unwrap_or_default() {
        "dead-letters" => Requirement::Scope(Scope::Admin),
        "users" | "erasures" => Requirement::Scope(Scope::Erase),
        "logs" if is_post => Requirement::Scope(Scope::Ingest),
        "logs" | "stats" if is_read => Requirement::Scope(Scope::Read),
        _ => Requirement::AnyKey,
    }
}

/// Returns whether the response to this route lasts until the caller ends it.
pub(super) fn is_tail(uri: &Uri) -> bool {
    uri.path() == TAIL
}

/// Returns whether the body of a request to this route is a batch.
pub(super) fn is_batch(uri: &Uri) -> bool {
    uri.path() == BATCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_router_requires_what_it_should() {
        let router = include_str!("../router.rs");
        let mut found = Vec::new();
        for line in router.lines().filter(|line| line.contains(".route(")) {
            let path = line.split('"').nth(1).unwrap_or("/api/v1/logs");
            for method in [Method::GET, Method::POST] {
                if line.contains(&format!("{}(", method.as_str().to_lowercase())) {
                    let required = requirement(&method, &path.replace("{id}", "1"));
                    found.push((format!("{method} {path}"), required));
                }
            }
        }
        let scope = Requirement::Scope;
        let expected = [
            ("GET /api/v1/logs", scope(Scope::Read)),
            ("POST /api/v1/logs", scope(Scope::Ingest)),
            ("POST /api/v1/logs/batch", scope(Scope::Ingest)),
            ("GET /api/v1/logs/export", scope(Scope::Read)),
            ("GET /api/v1/logs/tail", scope(Scope::Read)),
            ("GET /api/v1/logs/{id}", scope(Scope::Read)),
            ("GET /api/v1/stats", scope(Scope::Read)),
            ("GET /api/v1/dead-letters", scope(Scope::Admin)),
            ("POST /api/v1/dead-letters/replay", scope(Scope::Admin)),
            ("GET /api/v1/dead-letters/{id}", scope(Scope::Admin)),
            ("GET /api/v1/erasures", scope(Scope::Erase)),
            ("GET /api/v1/erasures/{id}", scope(Scope::Erase)),
            ("GET /health/live", Requirement::Open),
            ("GET /health/ready", Requirement::Open),
            ("GET /metrics", scope(Scope::Metrics)),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(route, required)| (route.to_owned(), required)).collect();
        assert_eq!(found, expected, "a new route needs a line here and its scope above");
    }

    #[test]
    fn pages_require_no_key() {
        for path in ["/", "/assets/app.js", "/docs", "/docs/", "/openapi.json"] {
            assert_eq!(requirement(&Method::GET, path), Requirement::Open, "{path}");
        }
    }

    #[test]
    fn unknown_routes_require_a_key() {
        for path in [
            "/api/v1",
            "/api/v1/log",
            "/health",
            "/health/live/",
            "//health/live",
            "/metrics/",
            "/api/v1/%6Cogs",
        ] {
            assert_eq!(requirement(&Method::GET, path), Requirement::AnyKey, "{path}");
        }
        assert_eq!(requirement(&Method::PUT, "/api/v1/logs"), Requirement::AnyKey);
    }
}
