//! The events of a batch that are not queued.

use eyego_log_core::wire::RejectedItem;
use http::StatusCode;

use super::{ApiError, FailureKind};
use crate::application::ingest::RejectedEvent;

/// Returns the HTTP status of a batch of which no event is queued: 503 if a retry
/// can succeed, 413 if each event is too large, otherwise 400.
pub(in crate::interface::http) fn status_of_rejected(rejected: &[RejectedEvent]) -> StatusCode {
    let status = |event: &RejectedEvent| FailureKind::Refused(event.error.refusal()).status();
    if rejected.iter().any(|event| event.error.code().is_retryable()) {
        StatusCode::SERVICE_UNAVAILABLE
    } else if rejected.iter().all(|event| status(event) == StatusCode::PAYLOAD_TOO_LARGE) {
        StatusCode::PAYLOAD_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    }
}

/// Builds the item of a batch response for an event that is not queued.
pub(in crate::interface::http) fn rejected_item(event: RejectedEvent) -> RejectedItem {
    let code = event.error.code();
    let ApiError { message, errors, id, .. } = event.error.into();
    RejectedItem {
        index: event.index,
        id,
        code,
        message: message.into_owned(),
        errors,
        retryable: code.is_retryable(),
    }
}
