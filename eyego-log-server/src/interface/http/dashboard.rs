//! The pages: the dashboard and the documentation of the API, each with its script and its style,
//! embedded at compile time.
//!
//! The files are built from `dashboard/src` and committed, so that a build of this
//! crate needs no Node (ADR 0034). They contain no data: the page calls the API
//! like any other client, with the key that its user enters.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};

use super::error::{ApiError, shortened};
use super::parameters;
use super::static_file::StaticFile;

static PAGE: LazyLock<StaticFile> = LazyLock::new(|| {
    StaticFile::new(
        "text/html; charset=utf-8",
        Bytes::from_static(include_bytes!("../../../dashboard/dist/index.html")),
    )
});
static SCRIPT: LazyLock<StaticFile> = LazyLock::new(|| {
    StaticFile::new(
        "text/javascript; charset=utf-8",
        Bytes::from_static(include_bytes!("../../../dashboard/dist/app.js")),
    )
});
static STYLE: LazyLock<StaticFile> = LazyLock::new(|| {
    StaticFile::new(
        "text/css; charset=utf-8",
        Bytes::from_static(include_bytes!("../../../dashboard/dist/app.css")),
    )
});

static DOCS_PAGE: LazyLock<StaticFile> = LazyLock::new(|| {
    let bytes = include_bytes!("../../../dashboard/dist/docs.html");
    StaticFile::new("text/html; charset=utf-8", Bytes::from_static(bytes))
});
static DOCS_SCRIPT: LazyLock<StaticFile> = LazyLock::new(|| {
    let bytes = include_bytes!("../../../dashboard/dist/docs.js");
    StaticFile::new("text/javascript; charset=utf-8", Bytes::from_static(bytes))
});
static DOCS_STYLE: LazyLock<StaticFile> = LazyLock::new(|| {
    let bytes = include_bytes!("../../../dashboard/dist/docs.css");
    StaticFile::new("text/css; charset=utf-8", Bytes::from_static(bytes))
});

/// Returns the routes of the pages. All addresses in them are relative, so
/// that they also work behind a proxy that adds a path prefix.
pub(super) fn routes() -> Router {
    Router::new()
        .route("/", get(page))
        .route("/docs", get(documentation))
        .route("/docs/", get(documentation_has_moved))
        .route("/assets/{name}", get(asset))
}

// Pages ignore the query, unlike the API: links to them pass through programs that add parameters.

async fn page(headers: HeaderMap) -> Response {
    PAGE.respond(&headers, false)
}

async fn documentation(headers: HeaderMap) -> Response {
    DOCS_PAGE.respond(&headers, false)
}

/// The addresses in the page are relative to `/docs`, so it cannot be served here.
async fn documentation_has_moved() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "../docs")]).into_response()
}

async fn asset(
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    // A path that is not UTF-8 is the name of no file.
    let name = name.map_or_else(|_| String::from("%FF"), |Path(name)| name);
    let file = match name.as_str() {
        "app.js" => &SCRIPT,
        "app.css" => &STYLE,
        "docs.js" => &DOCS_SCRIPT,
        "docs.css" => &DOCS_STYLE,
        _ => {
            let message = format!("no such file: {}", shortened(&name));
            return ApiError::not_found(message).into_response();
        }
    };
    let mut version = None;
    let parsed = parameters::parse(query.as_deref(), |name, value| match name {
        "v" => {
            version = Some(value.to_owned());
            Ok(())
        }
        _ => Err("is not a known parameter (those are v)".to_owned()),
    });
    if let Err(errors) = parsed {
        return ApiError::from(errors).into_response();
    }
    // While servers of two builds run side by side, a page can ask for the version
    // of the other build. That response must not be kept.
    file.respond(&headers, version.as_deref() == Some(file.version()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::body::to_bytes;
    use http::header::{
        ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG,
        IF_NONE_MATCH, VARY,
    };
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::interface::http::static_file::{IMMUTABLE, POLICY};

    async fn get_asset(
        query: &str,
        headers: &[(HeaderName, &str)],
    ) -> (StatusCode, HeaderMap, Bytes) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let query = RawQuery(Some(query.to_owned()));
        let response = asset(Ok(Path("app.js".to_owned())), query, headers).await;
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
    }

    #[tokio::test]
    async fn pages_ignore_unknown_parameters() {
        use tower::ServiceExt as _;

        for (path, status) in [
            ("/?utm_source=x", StatusCode::OK),
            ("/docs?x=1&x=2", StatusCode::OK),
            ("/docs/?x=1", StatusCode::PERMANENT_REDIRECT),
        ] {
            let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            let response = routes().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{path}");
        }
    }

    #[test]
    fn pages_refer_to_the_embedded_versions() {
        for (page, files) in [
            (&PAGE, [("app.js", &SCRIPT), ("app.css", &STYLE)]),
            (&DOCS_PAGE, [("docs.js", &DOCS_SCRIPT), ("docs.css", &DOCS_STYLE)]),
        ] {
            let page = std::str::from_utf8(page.bytes()).unwrap();
            for (name, file) in files {
                let address = format!("\"assets/{name}?v={}\"", file.version());
                assert!(page.contains(&address), "no {address}: run .ci/dashboard --build");
            }
            assert!(!page.contains("<style") && !page.contains("://"), "{page}");
        }
    }

    #[test]
    fn built_files_are_at_most_150_kb_compressed() {
        let files = [&PAGE, &SCRIPT, &STYLE, &DOCS_PAGE, &DOCS_SCRIPT, &DOCS_STYLE];
        let bytes: usize = files.iter().map(|file| file.gzip().len()).sum();
        assert!(bytes < 150_000, "{bytes} bytes");
    }

    #[tokio::test]
    async fn versioned_file_is_immutable_and_other_versions_are_revalidated() {
        let current = format!("v={}", SCRIPT.version());
        for (query, expected) in
            [(current.as_str(), IMMUTABLE), ("v=0", "no-cache"), ("", "no-cache")]
        {
            let (status, headers, body) = get_asset(query, &[]).await;
            assert_eq!(
                (status, &headers[CACHE_CONTROL]),
                (StatusCode::OK, &HeaderValue::from_static(expected))
            );
            assert_eq!(body, SCRIPT.bytes());
            assert_eq!(headers[CONTENT_SECURITY_POLICY], POLICY);
        }
    }

    #[tokio::test]
    async fn known_tag_returns_304_for_the_same_encoding_only() {
        let (_, headers, _) = get_asset("", &[]).await;
        let tag = headers[ETAG].to_str().unwrap().to_owned();
        let (status, _, body) = get_asset("", &[(IF_NONE_MATCH, &format!("\"x\", W/{tag}"))]).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
        let (status, ..) = get_asset("", &[(IF_NONE_MATCH, "*")]).await;
        assert_eq!(status, StatusCode::NOT_MODIFIED);
        let (status, ..) = get_asset("", &[(IF_NONE_MATCH, &tag), (ACCEPT_ENCODING, "gzip")]).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn gzip_is_used_only_if_accepted() {
        for (accepted, expected) in
            [("br, GZIP;q=0.5", true), ("gzip;q=0, br", false), ("br", false)]
        {
            let (_, headers, body) = get_asset("", &[(ACCEPT_ENCODING, accepted)]).await;
            assert_eq!(headers.contains_key(CONTENT_ENCODING), expected, "{accepted}");
            assert_eq!(headers[VARY], "accept-encoding");
            if expected {
                let mut text = Vec::new();
                flate2::read::GzDecoder::new(body.as_ref()).read_to_end(&mut text).unwrap();
                assert_eq!(text, SCRIPT.bytes());
            }
        }
    }
}
