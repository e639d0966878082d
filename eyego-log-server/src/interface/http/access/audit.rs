//! The audit log: who read, replayed or erased what, and whom the guard refused.
//! Its lines have the target `audit`. They contain the id of a key, never a
//! token.

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

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
    /// Set if the response is a stream. The line is then written at its end, with
    /// the count of the stream.
    stream: Option<Arc<AuditedStream>>,
}

impl Audited {
    /// Returns the count of a response to what the query string selects.
    #[must_use]
    pub fn count(count: u64) -> Self {
        Self { count, filter: None, stream: None }
    }

    /// Returns the count of a response to what `filter` selects.
    #[must_use]
    pub fn filter(count: u64, filter: String) -> Self {
        Self { count, filter: Some(filter), stream: None }
    }

    /// Returns the count of a streamed response to what the query string selects. It
    /// is known when the stream ends.
    #[must_use]
    pub fn stream(stream: &Arc<AuditedStream>) -> Self {
        Self { count: 0, filter: None, stream: Some(Arc::clone(stream)) }
    }
}

/// Counts the events of a streamed response. Dropping it writes the audit line.
#[derive(Debug, Default)]
pub struct AuditedStream {
    count: AtomicU64,
    is_complete: AtomicBool,
    /// Set once the response has begun.
    line: OnceLock<OwnedLine>,
}

impl AuditedStream {
    /// Adds events that were handed to the connection.
    pub fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// Records that the whole result was handed to the connection.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }
}

impl Drop for AuditedStream {
    fn drop(&mut self) {
        if let Some(line) = self.line.get() {
            let is_complete = Some(*self.is_complete.get_mut());
            AuditLog::write(&line.borrow(), None, Some(*self.count.get_mut()), is_complete);
        }
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

/// An [`AuditLine`] that outlives the request.
#[derive(Debug)]
struct OwnedLine {
    key: Option<String>,
    address: IpAddr,
    method: Method,
    uri: Uri,
    status: StatusCode,
    request_id: String,
}

impl OwnedLine {
    fn of(line: &AuditLine<'_>) -> Self {
        Self {
            key: line.key.map(str::to_owned),
            address: line.address,
            method: line.method.clone(),
            uri: line.uri.clone(),
            status: line.status,
            request_id: line.request_id.to_owned(),
        }
    }

    fn borrow(&self) -> AuditLine<'_> {
        AuditLine {
            key: self.key.as_deref(),
            address: self.address,
            method: &self.method,
            uri: &self.uri,
            status: self.status,
            request_id: &self.request_id,
        }
    }
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

    /// Writes a line about a request that was served. The line about a stream is
    /// written at its end.
    pub(super) fn served(line: &AuditLine<'_>, details: Option<Audited>) {
        match details {
            Some(Audited { stream: Some(stream), .. }) => {
                // A response is served once.
                let _ = stream.line.set(OwnedLine::of(line));
            }
            Some(Audited { count, filter, stream: None }) => {
                Self::write(line, filter.as_deref(), Some(count), None);
            }
            None => Self::write(line, None, None, None),
        }
    }

    fn write(
        line: &AuditLine<'_>,
        filter: Option<&str>,
        count: Option<u64>,
        complete: Option<bool>,
    ) {
        let filter = filter.or(line.uri.query()).unwrap_or_default();
        tracing::info!(
            target: "audit",
            key = line.key,
            address = %line.address,
            method = %line.method,
            route = shortened(line.uri.path()),
            filter = shortened(filter),
            count,
            complete,
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
