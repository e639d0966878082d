//! The audit log: who read, replayed or erased what, and whom the guard refused.
//! Its lines have the target `audit`. They contain the id of a key, never a
//! token.

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::{IntoResponseParts, ResponseParts};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Method, StatusCode, Uri};

use super::denial::Denial;

/// Lines about refused requests: one per second, and a few at once. Everybody
/// who reaches the port can cause them.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const LINES_AT_ONCE: Option<NonZeroU32> = NonZeroU32::new(20);

/// Maximum number of characters of a path or a filter in a line.
const MAX_CHARACTERS: usize = 1024;

/// What a handler adds to the audit line of its response.
#[derive(Debug, Clone)]
pub struct Audited {
    /// Number of events or dead letters that the response contains or that it
    /// affected.
    pub count: u64,
    /// What was selected, if that is not the query string.
    pub filter: Option<String>,
}

impl Audited {
    /// What was selected is the query string.
    #[must_use]
    pub fn count(count: u64) -> Self {
        Self { count, filter: None }
    }
}

impl IntoResponseParts for Audited {
    type Error = Infallible;

    /// Attaches it to the response for the guard, which removes it.
    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        response.extensions_mut().insert(self);
        Ok(response)
    }
}

/// What each line says about a request.
pub(super) struct AuditLine<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) address: IpAddr,
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) status: StatusCode,
    pub(super) request_id: &'a str,
}

/// Writes audit lines.
#[derive(Debug)]
pub(super) struct AuditLog {
    limiter: DefaultDirectRateLimiter,
    suppressed: AtomicU64,
}

impl AuditLog {
    pub(super) fn new() -> Self {
        let quota = Quota::per_second(LINES_PER_SECOND)
            .allow_burst(LINES_AT_ONCE.unwrap_or(LINES_PER_SECOND));
        Self { limiter: RateLimiter::direct(quota), suppressed: AtomicU64::new(0) }
    }

    /// Writes a line about a request that was served.
    pub(super) fn served(line: &AuditLine<'_>, details: Option<Audited>) {
        let (count, filter) = match details {
            Some(Audited { count, filter }) => (Some(count), filter),
            None => (None, None),
        };
        let filter = filter.as_deref().or(line.uri.query()).unwrap_or_default();
        tracing::info!(
            target: "audit",
            key = line.key,
            address = %line.address,
            method = %line.method,
            route = shortened(line.uri.path()),
            filter = shortened(filter),
            count,
            status = line.status.as_u16(),
            request_id = line.request_id,
            "served"
        );
    }

    /// Writes a line about a refused request, unless there were too many lately.
    /// The query string is left out: it may contain a token.
    pub(super) fn denied(&self, line: &AuditLine<'_>, denial: Denial) {
        if self.limiter.check().is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tracing::warn!(
            target: "audit",
            key = line.key,
            address = %line.address,
            method = %line.method,
            route = shortened(line.uri.path()),
            reason = denial.label(),
            status = line.status.as_u16(),
            request_id = line.request_id,
            "refused"
        );
    }

    /// Writes how many lines about refused requests were left out since the last
    /// call.
    pub(super) fn report_suppressed(&self) {
        let count = self.suppressed.swap(0, Ordering::Relaxed);
        if count > 0 {
            tracing::warn!(target: "audit", count, "refused, not listed");
        }
    }
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(MAX_CHARACTERS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_refused_requests_are_limited() {
        let log = AuditLog::new();
        let uri = Uri::from_static("/api/v1/logs");
        let line = AuditLine {
            key: None,
            address: [127, 0, 0, 1].into(),
            method: &Method::GET,
            uri: &uri,
            status: StatusCode::UNAUTHORIZED,
            request_id: "1",
        };
        for _ in 0..1000 {
            log.denied(&line, Denial::Unauthenticated);
        }
        let suppressed = log.suppressed.load(Ordering::Relaxed);
        assert!((900..=980).contains(&suppressed), "{suppressed}");
        log.report_suppressed();
        assert_eq!(log.suppressed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn long_text_is_shortened_between_characters() {
        assert_eq!(shortened(&"é".repeat(2000)).len(), 2 * MAX_CHARACTERS);
        assert_eq!(shortened("short"), "short");
    }
}
