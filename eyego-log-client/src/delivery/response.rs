//! Classifies the response to a batch: what its status and body mean for the
//! events. The dispatcher acts on the result.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::delivery::retry::retry_after;
use crate::model::loss_reason::LossReason;
use crate::transport::TransportResult;
use crate::transport::describe::{describe, error_chain};

/// What a response means for the events of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Classification {
    /// All events are delivered.
    Delivered,
    /// All events are delivered except for these.
    PerItem { rejected: Vec<Rejected>, retry_after: Option<Duration> },
    /// Retry the whole batch.
    Retry { retry_after: Option<Duration>, message: String },
    /// Retry the whole batch. The response did not come from an eyego-log
    /// server.
    UnexpectedResponse(String),
    /// Send the batch again in two halves, because it is too large or because a
    /// single event may have caused the refusal. A single event is lost for this
    /// reason.
    SplitBatch(LossReason, String),
    /// The server does not support the compression.
    DisableCompression(String),
    /// All events are lost.
    Lost(LossReason, String),
}

/// An event that the server did not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) index: usize,
    /// Why the event is lost, or `None` if it can be retried.
    pub(crate) reason: Option<LossReason>,
    pub(crate) message: String,
}

/// Like `eyego_log_core::wire::BatchResponse`, but accepts unknown error codes,
/// which a later server version may use.
#[derive(Deserialize)]
struct BatchBody {
    accepted: usize,
    #[serde(default)]
    rejected: Vec<RejectedItem>,
}

#[derive(Deserialize)]
struct RejectedItem {
    index: usize,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    retryable: bool,
}

/// Classifies the response to a batch of `events` events that arrived at `now`.
pub(crate) fn classify(result: &TransportResult, events: usize, now: SystemTime) -> Classification {
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            return Classification::Retry { retry_after: None, message: error_chain(error) };
        }
    };
    let pause = response.retry_after.as_deref().and_then(|value| retry_after(value, now));
    if matches!(response.status, 200..=299 | 400 | 503)
        && let Some(classification) = classify_items(&response.body, events, pause)
    {
        return classification;
    }
    let message = describe(response);
    match response.status {
        401 | 403 => Classification::Lost(LossReason::Unauthorized, message),
        400 | 422 => Classification::SplitBatch(LossReason::Refused, message),
        413 => Classification::SplitBatch(LossReason::TooLarge, message),
        415 => Classification::DisableCompression(message),
        408 | 425 | 429 | 500..=599 => Classification::Retry { retry_after: pause, message },
        402..=499 => Classification::Lost(LossReason::Refused, message),
        _ => Classification::UnexpectedResponse(message),
    }
}

/// Returns `None` if the body is not a response to a batch of this size.
fn classify_items(
    body: &[u8],
    events: usize,
    retry_after: Option<Duration>,
) -> Option<Classification> {
    let BatchBody { accepted, rejected } = serde_json::from_slice(body).ok()?;
    if accepted.checked_add(rejected.len()) != Some(events) {
        return None;
    }
    if rejected.is_empty() {
        return Some(Classification::Delivered);
    }
    let mut rejected: Vec<Rejected> = rejected.into_iter().map(Rejected::from).collect();
    rejected.sort_by_key(|item| item.index);
    let is_unique = rejected.is_sorted_by(|a, b| a.index < b.index);
    let is_in_range = rejected.last().is_some_and(|last| last.index < events);
    (is_unique && is_in_range).then_some(Classification::PerItem { rejected, retry_after })
}

impl From<RejectedItem> for Rejected {
    fn from(item: RejectedItem) -> Self {
        let lost =
            if item.code == "too_large" { LossReason::TooLarge } else { LossReason::Invalid };
        let reason = (!item.retryable).then_some(lost);
        let message =
            if item.message.is_empty() { format!("code {}", item.code) } else { item.message };
        Self { index: item.index, reason, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::transport::Response;

    fn classify_status(status: u16, body: &(impl ToString + ?Sized)) -> Classification {
        let response = Response::new(status, body.to_string());
        classify(&Ok(response), 3, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn accepted_and_rejected_items_are_recognized() {
        let all = json!({"accepted": 3, "rejected": []});
        assert_eq!(classify_status(202, &all), Classification::Delivered);
        let mixed = json!({"accepted": 1, "rejected": [
            {"index": 2, "code": "queue_full", "message": "full", "retryable": true},
            {"index": 0, "code": "too_large", "message": "large", "retryable": false},
        ]});
        let rejected =
            |index, reason, message: &str| Rejected { index, reason, message: message.to_owned() };
        let rejected =
            vec![rejected(0, Some(LossReason::TooLarge), "large"), rejected(2, None, "full")];
        let expected = Classification::PerItem { rejected, retry_after: None };
        assert_eq!(classify_status(207, &mixed), expected);
    }

    #[test]
    fn a_body_that_does_not_match_the_batch_is_unexpected() {
        let is_unexpected =
            |classification| matches!(classification, Classification::UnexpectedResponse(_));
        for body in [
            json!({"accepted": 2, "rejected": []}),
            json!({"accepted": 2, "rejected": [{"index": 3, "retryable": true}]}),
            json!({"accepted": 1, "rejected": [
                {"index": 1, "retryable": true}, {"index": 1, "retryable": false}]}),
            json!("hello"),
        ] {
            assert!(is_unexpected(classify_status(202, &body)), "{body}");
        }
        let classification = classify_status(200, "<html>log in</html>");
        let Classification::UnexpectedResponse(message) = classification else { panic!() };
        assert!(message.contains("status 200") && message.contains("<html>"), "{message}");
        assert!(is_unexpected(classify_status(302, "")));
    }

    #[test]
    fn every_status_is_classified() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let classification = classify_status(status, "busy");
            assert!(matches!(classification, Classification::Retry { .. }), "{status}");
        }
        for (status, expected) in [
            (401, LossReason::Unauthorized),
            (403, LossReason::Unauthorized),
            (404, LossReason::Refused),
            (405, LossReason::Refused),
        ] {
            let classification = classify_status(status, "no");
            let is_lost =
                matches!(classification, Classification::Lost(reason, _) if reason == expected);
            assert!(is_lost, "{status}");
        }
        let too_large = classify_status(413, "{}");
        assert!(matches!(too_large, Classification::SplitBatch(LossReason::TooLarge, _)));
        let bad_request = classify_status(400, "{}");
        assert!(matches!(bad_request, Classification::SplitBatch(LossReason::Refused, _)));
        let unsupported = classify_status(415, "{}");
        assert!(matches!(unsupported, Classification::DisableCompression(_)));
    }

    proptest! {
        #[test]
        fn no_response_panics(status in 0_u16..1000, body: Vec<u8>, events in 0_usize..5) {
            let _ = classify(&Ok(Response::new(status, body)), events, SystemTime::UNIX_EPOCH);
        }

        #[test]
        fn no_json_panics(status in 200_u16..504, accepted: usize, index: usize, events: usize) {
            let body = json!({"accepted": accepted, "rejected": [{"index": index, "retryable": true}]});
            let response = Response::new(status, body.to_string());
            let _ = classify(&Ok(response), events, SystemTime::UNIX_EPOCH);
        }
    }
}
