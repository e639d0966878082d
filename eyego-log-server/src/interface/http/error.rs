//! Failures of the API and their responses, for single events and batches alike.
//!
//! Two tables state each fact once:
//! [`IngestError`](crate::application::ingest::IngestError) maps every reason an
//! event is not queued to the counted refusal and the machine-readable code, and
//! [`FailureKind::status`] maps every kind of failure to its HTTP status.
//! [`respond`] adds `Retry-After` to every 503, and a 429 has its own.
//!
//! | module | contents |
//! |---|---|
//! | `reasons` | the kind and the message of each error of the other layers |
//! | `batch` | the events of a batch that are not queued |

mod batch;
mod reasons;

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use eyego_log_core::limits::MAX_NAME_CHARS;
use eyego_log_core::wire::{ErrorResponse, IngestResponse};
use eyego_log_core::{FieldError, FieldErrors, LogId};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

pub(super) use self::batch::{rejected_item, status_of_rejected};
use super::envelope::{respond, status_field};
use crate::application::metrics::Refusal;

/// A request that failed: everything its response contains, and what only the
/// server's log contains.
#[derive(Debug)]
pub(crate) struct ApiError {
    kind: FailureKind,
    /// Message for the caller. It never contains internals.
    message: Cow<'static, str>,
    errors: FieldErrors,
    /// Id of an event that was not acknowledged, for a retry with the same id.
    id: Option<LogId>,
    /// Details for the server's log only.
    internals: Option<String>,
    /// Time until a caller that is over its limit may retry.
    retry_after: Option<Duration>,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// The body, or the event in it, was refused for this reason.
    Refused(Refusal),
    NotFound,
    MethodNotAllowed,
    Conflict,
    Gone,
    NotSupported,
    StoreUnavailable,
    Unauthenticated,
    Forbidden,
    Misdirected,
}

impl FailureKind {
    /// The table of failures and their HTTP statuses.
    fn status(self) -> StatusCode {
        match self {
            Self::Refused(Refusal::Invalid) => StatusCode::BAD_REQUEST,
            Self::Refused(Refusal::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(Refusal::Unsupported) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused(Refusal::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            // An abandoned event has no caller left to see this.
            Self::Refused(Refusal::QueueFull | Refusal::Unavailable | Refusal::Abandoned)
            | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(Refusal::Internal) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Gone => StatusCode::GONE,
            Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Refused(Refusal::RateLimited) => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// Details of a failure for the server's log, attached to the response.
#[derive(Debug, Clone)]
pub(super) struct Internals(pub(super) String);

impl ApiError {
    fn new(kind: FailureKind, message: impl Into<Cow<'static, str>>) -> Self {
        let errors = FieldErrors::new();
        Self { kind, message: message.into(), errors, id: None, internals: None, retry_after: None }
    }

    /// Creates the error of a request that is invalid without a single invalid field.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FailureKind::Refused(Refusal::Invalid), message)
    }

    /// Creates the error of a request with one invalid field.
    pub(super) fn invalid_field(error: FieldError) -> Self {
        FieldErrors::from(error).into()
    }

    /// Creates the error of a body, or a batch, that is too large.
    pub(super) fn too_large(message: String) -> Self {
        Self::new(FailureKind::Refused(Refusal::TooLarge), message)
    }

    /// Creates the error of a server that has too much other work.
    pub(super) fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FailureKind::Refused(Refusal::QueueFull), message)
    }

    /// Creates the error of a body that arrives too slowly.
    pub(super) fn too_slow(message: String) -> Self {
        Self::new(FailureKind::Refused(Refusal::TooSlow), message)
    }

    /// Creates the error of a body whose media type or encoding is not supported.
    pub(super) fn unsupported(message: String) -> Self {
        Self::new(FailureKind::Refused(Refusal::Unsupported), message)
    }

    /// Creates the error of a path or an id under which nothing exists.
    pub(super) fn not_found(message: String) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// Creates the error of a request without a valid token.
    pub(super) fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FailureKind::Unauthenticated, message)
    }

    /// Creates the error of a request that the key does not allow, or that comes from a
    /// page of another origin.
    pub(super) fn forbidden(message: String) -> Self {
        Self::new(FailureKind::Forbidden, message)
    }

    /// Creates the error of a request that is addressed to another server.
    pub(super) fn misdirected(message: String) -> Self {
        Self::new(FailureKind::Misdirected, message)
    }

    /// Creates the error of a caller that is over its limit.
    pub(super) fn rate_limited(message: String, retry_after: Duration) -> Self {
        let error = Self::new(FailureKind::Refused(Refusal::RateLimited), message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Creates the error of a path that exists, but not for this method.
    pub(super) fn method_not_allowed() -> Self {
        let message = "method not allowed: the Allow header lists the methods of this path";
        Self::new(FailureKind::MethodNotAllowed, message)
    }

    /// Creates the error of a failure of the server. `internals` is written to its log.
    pub(super) fn internal(internals: String) -> Self {
        let message = "internal server error: the server log has the details under the request id";
        let error = Self::new(FailureKind::Refused(Refusal::Internal), message);
        Self { internals: Some(internals), ..error }
    }

    fn store_unavailable(internals: String) -> Self {
        let error =
            Self::new(FailureKind::StoreUnavailable, "the store is unavailable; retry later");
        Self { internals: Some(internals), ..error }
    }

    /// Returns the reason under which a body that is refused as a whole is
    /// counted.
    pub(super) fn refusal(&self) -> Refusal {
        match self.kind {
            FailureKind::Refused(refusal) => refusal,
            FailureKind::NotFound
            | FailureKind::MethodNotAllowed
            | FailureKind::Conflict
            | FailureKind::Gone
            | FailureKind::Unauthenticated
            | FailureKind::Forbidden
            | FailureKind::Misdirected => Refusal::Invalid,
            FailureKind::StoreUnavailable | FailureKind::NotSupported => Refusal::Internal,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { kind, message, errors, id, internals, retry_after } = self;
        let code = kind.status();
        let (status, message) = (status_field(code), message.into_owned());
        let mut response = match id {
            Some(id) => respond(code, &IngestResponse { status, message, id }),
            None => respond(code, &ErrorResponse { status, message, errors }),
        };
        if code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(internals) = internals {
            response.extensions_mut().insert(Internals(internals));
        }
        response
    }
}

/// Returns what the caller sent, cut at 64 characters, for a message.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_NAME_CHARS) {
        None => Cow::Borrowed(text),
        Some(_) => text.chars().take(MAX_NAME_CHARS - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use eyego_log_core::ParseError;
    use serde_json::{Value, json};

    use super::*;
    use crate::application::ingest::{IngestError, RejectedEvent};
    use crate::domain::queue::AppendError;
    use crate::domain::read::ReadError;

    const SECRET: &str = "kafka-1.internal:9092";

    fn not_queued(error: fn(String) -> AppendError) -> IngestError {
        IngestError::NotQueued { id: Some(LogId::from_bytes([7; 12])), error: error(SECRET.into()) }
    }

    fn invalid() -> IngestError {
        let error = FieldError::new("userId", "must be a non-empty string");
        IngestError::Invalid(ParseError::Fields(error.into()))
    }

    fn too_large() -> IngestError {
        IngestError::TooLarge { bytes: 3, max: 2 }
    }

    async fn response(error: impl Into<ApiError>) -> (u16, bool, Value) {
        let response = error.into().into_response();
        let code = response.status().as_u16();
        let can_retry = response.headers().contains_key(RETRY_AFTER);
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains(SECRET), "{body:?}");
        (code, can_retry, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn single_events_and_batches_report_the_same_failure() {
        for (error, code) in [
            (invalid as fn() -> IngestError, 400),
            (too_large, 413),
            (|| not_queued(AppendError::TooLarge), 413),
            (|| not_queued(AppendError::Full), 503),
            (|| not_queued(AppendError::Lagging), 503),
            (|| not_queued(|_| AppendError::OutOfMemory), 503),
            (|| not_queued(AppendError::Unavailable), 503),
        ] {
            let (single, has_retry_after, body) = response(error()).await;
            let events = [RejectedEvent { index: 0, error: error() }];
            assert_eq!((single, status_of_rejected(&events).as_u16()), (code, code));
            let [event] = events;
            let item = json!(rejected_item(event));
            assert_eq!(item["retryable"], json!(code == 503));
            assert_eq!(has_retry_after, code == 503);
            assert_eq!(body["status"], if code == 503 { "error" } else { "fail" });
            assert_eq!(body["message"], item["message"]);
            assert_eq!(body["id"], item["id"]);
        }
    }

    #[test]
    fn the_status_of_a_rejected_batch_depends_on_all_its_events() {
        for (errors, code) in [
            (vec![invalid(), too_large(), not_queued(AppendError::Full)], 503),
            (vec![too_large(), not_queued(AppendError::TooLarge)], 413),
            (vec![too_large(), invalid()], 400),
        ] {
            let events: Vec<_> =
                errors.into_iter().map(|error| RejectedEvent { index: 0, error }).collect();
            assert_eq!(status_of_rejected(&events).as_u16(), code, "{events:?}");
        }
    }

    #[tokio::test]
    async fn internals_stay_out_of_the_response() {
        let secret = || SECRET.to_owned();
        for (error, code) in [
            (ApiError::from(ReadError::Unavailable(secret())), 503),
            (ReadError::Failed(secret()).into(), 500),
            (ApiError::internal(secret()), 500),
            (IngestError::NotQueued { id: None, error: AppendError::Full(secret()) }.into(), 503),
        ] {
            assert!(error.internals.as_ref().is_some_and(|text| text.contains(SECRET)));
            let (actual, has_retry_after, body) = response(error).await;
            assert_eq!((actual, has_retry_after), (code, code == 503), "{body}");
        }
    }
}
