//! Classifies the response to a batch: what its status and body mean for the
//! events. The dispatcher acts on the result.
//!
//! Only an eyego-log server can decide that an event is lost, and its error
//! responses have an envelope. A refusal without one comes from a proxy or from
//! another server, so the batch is retried.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::delivery::retry::retry_after;
use crate::model::loss_reason::LossReason;
use crate::transport::describe::{Attempt, describe, error_chain, header, server_message, source};
use crate::transport::{Response, TransportResult};

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
    /// The server does not accept the API key. Events in the spool wait for
    /// another key. Others do so only if `can_key_change` is true, until their
    /// delivery timeout.
    Unauthorized { can_key_change: bool, message: String },
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
    let pause = header(response, "retry-after").and_then(|value| retry_after(value, now));
    let status = response.status().as_u16();
    if matches!(status, 200..=299 | 400 | 413 | 503)
        && let Some(classification) = classify_items(response, events, pause)
    {
        return classification;
    }
    let message = describe(response);
    match status {
        408 | 425 | 429 | 500..=599 => Classification::Retry { retry_after: pause, message },
        // A proxy that does not know the encoding sends no envelope.
        415 if attempt(response).is_some_and(|attempt| attempt.is_compressed) => {
            Classification::DisableCompression(message)
        }
        // The limit of a proxy. Smaller batches may pass.
        413 if events > 1 => Classification::SplitBatch(LossReason::TooLarge, message),
        400..=499 if server_message(response).is_some() => refused(response, message),
        _ => Classification::UnexpectedResponse(message),
    }
}

/// Classifies a refusal by an eyego-log server.
fn refused(response: &Response, message: String) -> Classification {
    match response.status().as_u16() {
        401 | 403 => {
            let can_key_change = attempt(response).is_some_and(|attempt| attempt.can_key_change);
            Classification::Unauthorized { can_key_change, message }
        }
        400 | 422 => Classification::SplitBatch(LossReason::Refused, message),
        413 => Classification::SplitBatch(LossReason::TooLarge, message),
        _ => Classification::Lost(LossReason::Refused, message),
    }
}

pub(crate) fn attempt(response: &Response) -> Option<&Attempt> {
    response.extensions().get()
}

/// Returns `None` if the body is not a response to a batch of this size.
fn classify_items(
    response: &Response,
    events: usize,
    retry_after: Option<Duration>,
) -> Option<Classification> {
    let BatchBody { accepted, rejected } = serde_json::from_slice(response.body()).ok()?;
    if accepted.checked_add(rejected.len()) != Some(events) {
        return None;
    }
    if rejected.is_empty() {
        return Some(Classification::Delivered);
    }
    let source = source(response);
    let rejected = rejected.into_iter().map(|item| item.rejected(&source));
    let mut rejected: Vec<Rejected> = rejected.collect();
    rejected.sort_by_key(|item| item.index);
    let is_unique = rejected.is_sorted_by(|a, b| a.index < b.index);
    let is_in_range = rejected.last().is_some_and(|last| last.index < events);
    (is_unique && is_in_range).then_some(Classification::PerItem { rejected, retry_after })
}

impl RejectedItem {
    /// `source` says which response contains the item.
    fn rejected(self, source: &str) -> Rejected {
        let lost =
            if self.code == "too_large" { LossReason::TooLarge } else { LossReason::Invalid };
        let reason = (!self.retryable).then_some(lost);
        let message = if self.message.is_empty() {
            format!("{source}: code {}", self.code)
        } else {
            format!("{source}: {}", self.message)
        };
        Rejected { index: self.index, reason, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::transport::{Bytes, Request, response};

    fn classify_status(status: u16, body: &(impl ToString + ?Sized)) -> Classification {
        classify_batch(status, body, 3)
    }

    fn classify_batch(
        status: u16,
        body: &(impl ToString + ?Sized),
        events: usize,
    ) -> Classification {
        classify(&Ok(response(status, body.to_string())), events, SystemTime::UNIX_EPOCH)
    }

    /// An error response of an eyego-log server.
    fn envelope() -> serde_json::Value {
        json!({"status": "fail", "message": "no"})
    }

    #[test]
    fn accepted_and_rejected_items_are_recognized() {
        let all = json!({"accepted": 3, "rejected": []});
        assert_eq!(classify_status(202, &all), Classification::Delivered);
        let mixed = json!({"accepted": 1, "rejected": [
            {"index": 2, "code": "queue_full", "message": "full", "retryable": true},
            {"index": 0, "code": "too_large", "message": "large", "retryable": false},
        ]});
        let rejected = |index, reason, message: &str| {
            let message = format!("the server responded with status 207: {message}");
            Rejected { index, reason, message }
        };
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
    fn a_refusal_by_the_server_is_final() {
        for status in [404, 405, 410, 415, 421] {
            let classification = classify_status(status, &envelope());
            assert!(
                matches!(classification, Classification::Lost(LossReason::Refused, _)),
                "{status}"
            );
        }
        for status in [401, 403] {
            let classification = classify_status(status, &envelope());
            assert!(matches!(classification, Classification::Unauthorized { .. }), "{status}");
        }
        for events in [1, 3] {
            let too_large = classify_batch(413, &envelope(), events);
            assert!(matches!(too_large, Classification::SplitBatch(LossReason::TooLarge, _)));
            let bad_request = classify_batch(400, &envelope(), events);
            assert!(matches!(bad_request, Classification::SplitBatch(LossReason::Refused, _)));
        }
    }

    #[test]
    fn a_refusal_by_anyone_else_is_retried() {
        for status in [400, 401, 403, 404, 405, 410, 413, 415, 418, 422, 301, 307] {
            for body in ["", "404 page not found", "{}", r#"{"message":"no"}"#] {
                let classification = classify_batch(status, body, 1);
                assert!(
                    matches!(classification, Classification::UnexpectedResponse(_)),
                    "{status} {body}"
                );
            }
        }
        let split = classify_status(413, "request entity too large");
        assert!(matches!(split, Classification::SplitBatch(LossReason::TooLarge, _)));
    }

    #[test]
    fn a_failing_server_is_retried() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            for body in ["busy".to_owned(), envelope().to_string()] {
                let classification = classify_status(status, &body);
                assert!(matches!(classification, Classification::Retry { .. }), "{status}");
            }
        }
    }

    #[test]
    fn compression_is_disabled_only_if_the_request_was_compressed() {
        let mut request = Request::new(Bytes::new());
        request.headers_mut().insert("content-encoding", "zstd".parse().unwrap());
        for body in [envelope().to_string(), "no".to_owned()] {
            let mut response = response(415, body);
            response.extensions_mut().insert(Attempt::new(&request));
            let classification = classify(&Ok(response), 3, SystemTime::UNIX_EPOCH);
            assert!(matches!(classification, Classification::DisableCompression(_)));
        }
    }

    #[test]
    fn a_413_with_an_item_list_decides_on_each_event() {
        let rejected: Vec<_> = (0..3)
            .map(|index| json!({"index": index, "code": "too_large", "retryable": false}))
            .collect();
        let body = json!({"status": "fail", "message": "no", "accepted": 0, "rejected": rejected});
        let Classification::PerItem { rejected, .. } = classify_status(413, &body) else {
            panic!()
        };
        assert!(rejected.iter().all(|item| item.reason == Some(LossReason::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_response_causes_a_panic(status in 0_u16..1000, body: Vec<u8>, events in 0_usize..5) {
            let _ = classify(&Ok(response(status, body)), events, SystemTime::UNIX_EPOCH);
        }

        #[test]
        fn no_json_causes_a_panic(status in 200_u16..504, accepted: usize, index: usize, events: usize) {
            let body = json!({"accepted": accepted, "rejected": [{"index": index, "retryable": true}]});
            let _ = classify_batch(status, &body, events);
        }
    }
}
