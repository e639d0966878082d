//! The envelope of every JSON response.

use axum::Json;
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::Status;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// Seconds that a client waits before it retries: long enough for a full queue to
/// drain a little.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Builds a JSON response. A 503 tells the client when to retry.
pub(super) fn respond(code: StatusCode, body: &impl Serialize) -> Response {
    let mut response = (code, Json(body)).into_response();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response
}

/// Returns the `status` field of an envelope.
pub(super) fn status_field(code: StatusCode) -> Status {
    if code.is_server_error() {
        Status::Error
    } else if code.is_client_error() {
        Status::Fail
    } else {
        Status::Success
    }
}
