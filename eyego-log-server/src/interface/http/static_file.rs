//! Files that stay the same while the process runs: compressed once, and revalidated by their version.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::content_encoding::Encoding;
use super::error::ApiError;
use super::parameters;

/// Allows the server's own script, style and API and nothing else, not even inline
/// script or style.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The page refers to the other files with `?v=<version>`, so that a browser can
/// keep those for ever and a new build is loaded at once.
pub(super) const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A file that stays the same while the process runs.
pub(super) struct StaticFile {
    media_type: &'static str,
    bytes: Bytes,
    gzip: Bytes,
    /// The first 16 hex digits of its SHA-256.
    version: String,
}

impl StaticFile {
    /// Compresses the file and computes its version, once per process.
    pub(super) fn new(media_type: &'static str, bytes: Bytes) -> Self {
        let digest = Sha256::digest(&bytes);
        let version = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let gzip = gzip(&bytes).into();
        Self { media_type, bytes, gzip, version }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Returns the response to a request of a route without parameters.
    pub(super) fn respond_to(&self, query: Option<&str>, request: &HeaderMap) -> Response {
        match parameters::expect_none(query) {
            Ok(()) => self.respond(request, false),
            Err(errors) => ApiError::from(errors).into_response(),
        }
    }

    /// Returns the response to a request with these headers. With `is_immutable`, a browser may keep
    /// the file for ever.
    pub(super) fn respond(&self, request: &HeaderMap, is_immutable: bool) -> Response {
        let is_gzip = Encoding::preferred(request, &[Encoding::Gzip]) == Encoding::Gzip;
        // The two representations are different bytes and have different tags.
        let tag = if is_gzip { "-gzip" } else { "" };
        let tag = format!("\"{}{tag}\"", self.version);
        let is_known =
            request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
                |tags| {
                    tags.split(',')
                        .map(str::trim)
                        .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
                },
            );
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else if is_gzip {
            ([(CONTENT_ENCODING, "gzip")], self.gzip.clone()).into_response()
        } else {
            self.bytes.clone().into_response()
        };
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(CONTENT_TYPE, self.media_type);
        set(ETAG, &tag);
        set(CACHE_CONTROL, if is_immutable { IMMUTABLE } else { "no-cache" });
        set(VARY, "accept-encoding");
        set(CONTENT_SECURITY_POLICY, POLICY);
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(REFERRER_POLICY, "no-referrer");
        response
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;

    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing into a vector cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
impl StaticFile {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn gzip(&self) -> &[u8] {
        &self.gzip
    }
}
