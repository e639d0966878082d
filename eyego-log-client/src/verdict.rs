//! What an answer to a batch means for its events: a pure function from
//! status, headers and body. What follows from it is decided in `dispatch`.

use std::time::Duration;

use eyego_log_core::Timestamp;
use serde::Deserialize;

use crate::loss::LossReason;
use crate::retry::retry_after;
use crate::transport::{Response, TransportError};

/// How much of an answer that makes no sense is shown, in bytes.
const SHOWN_BYTES: usize = 200;

/// What is to be done with the events of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All are delivered.
    Delivered,
    /// All are delivered but these.
    PerItem { rejected: Vec<Rejected>, retry_after: Option<Duration> },
    /// Try again.
    Retry { retry_after: Option<Duration>, message: String },
    /// Try again; what came is no answer of our server.
    Nonsense(String),
    /// Try again in smaller pieces, since it is too large as a whole or since
    /// one event may spoil it for all; a single event is lost for this reason.
    Halve(LossReason, String),
    /// The encoding is not understood.
    Unencoded(String),
    /// All are lost.
    Lost(LossReason, String),
}

/// An event that the server did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) index: usize,
    /// `None`: try it again.
    pub(crate) reason: Option<LossReason>,
    pub(crate) message: String,
}

/// `eyego_log_core::wire::BatchResponse`, but open to codes of later servers.
#[derive(Deserialize)]
struct Answer {
    accepted: usize,
    #[serde(default)]
    rejected: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    retryable: bool,
}

/// What this answer to a batch of `events` events means, read at that time.
pub(crate) fn read(
    answer: &Result<Response, TransportError>,
    events: usize,
    now: Timestamp,
) -> Verdict {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return Verdict::Retry { retry_after: None, message: whole_story(error) },
    };
    let wait = response.retry_after.as_deref().and_then(|value| retry_after(value, now));
    match response.status {
        200..=299 | 400 | 503 => {
            if let Some(verdict) = per_item(&response.body, events, wait) {
                return verdict;
            }
        }
        _ => {}
    }
    let message = describe(response);
    match response.status {
        401 | 403 => Verdict::Lost(LossReason::Unauthorized, message),
        400 | 422 => Verdict::Halve(LossReason::Refused, message),
        413 => Verdict::Halve(LossReason::TooLarge, message),
        415 => Verdict::Unencoded(message),
        408 | 425 | 429 | 500..=599 => Verdict::Retry { retry_after: wait, message },
        402..=499 => Verdict::Lost(LossReason::Refused, message),
        _ => Verdict::Nonsense(message),
    }
}

/// `None` where the body is not the server's answer to this batch.
fn per_item(body: &[u8], events: usize, retry_after: Option<Duration>) -> Option<Verdict> {
    let Answer { accepted, rejected } = serde_json::from_slice(body).ok()?;
    if accepted.checked_add(rejected.len()) != Some(events) {
        return None;
    }
    if rejected.is_empty() {
        return Some(Verdict::Delivered);
    }
    let mut rejected: Vec<Rejected> = rejected.into_iter().map(Rejected::from).collect();
    rejected.sort_by_key(|item| item.index);
    let ascends = rejected.is_sorted_by(|a, b| a.index < b.index);
    let fits = rejected.last().is_some_and(|last| last.index < events);
    (ascends && fits).then_some(Verdict::PerItem { rejected, retry_after })
}

impl From<Item> for Rejected {
    fn from(item: Item) -> Self {
        let lost =
            if item.code == "too_large" { LossReason::TooLarge } else { LossReason::Invalid };
        let reason = (!item.retryable).then_some(lost);
        let message =
            if item.message.is_empty() { format!("code {}", item.code) } else { item.message };
        Self { index: item.index, reason, message }
    }
}

/// The status and the first of what the server said.
pub(crate) fn describe(response: &Response) -> String {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }

    let status = response.status;
    let id = response.request_id.as_deref().map(|id| format!(" (request {id})"));
    let id = id.unwrap_or_default();
    match serde_json::from_slice(&response.body) {
        Ok(Failure { message }) => format!("the server answered {status}{id}: {message}"),
        Err(_) if response.body.is_empty() => {
            format!("the server answered {status}{id} with no body")
        }
        Err(_) => {
            let shown = &response.body[..response.body.len().min(SHOWN_BYTES)];
            let shown = String::from_utf8_lossy(shown);
            format!("the answer makes no sense: status {status}{id}, body {shown:?}")
        }
    }
}

/// An error with all that led to it.
pub(crate) fn whole_story(error: &dyn std::error::Error) -> String {
    let mut story = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !story.contains(&text) {
            story.push_str(": ");
            story.push_str(&text);
        }
        source = error.source();
    }
    story
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from(std::time::SystemTime::UNIX_EPOCH)
    }

    fn judge(status: u16, body: &(impl ToString + ?Sized)) -> Verdict {
        read(&Ok(Response::new(status, body.to_string())), 3, now())
    }

    #[test]
    fn the_servers_answers_are_understood() {
        assert_eq!(judge(202, &json!({"accepted": 3, "rejected": []})), Verdict::Delivered);
        let mixed = json!({"accepted": 1, "rejected": [
            {"index": 2, "code": "queue_full", "message": "full", "retryable": true},
            {"index": 0, "code": "too_large", "message": "large", "retryable": false},
        ]});
        let rejected =
            |index, reason, message: &str| Rejected { index, reason, message: message.to_owned() };
        let expected =
            vec![rejected(0, Some(LossReason::TooLarge), "large"), rejected(2, None, "full")];
        assert_eq!(judge(207, &mixed), Verdict::PerItem { rejected: expected, retry_after: None });
    }

    #[test]
    fn an_answer_to_another_batch_makes_no_sense() {
        for body in [
            json!({"accepted": 2, "rejected": []}),
            json!({"accepted": 2, "rejected": [{"index": 3, "retryable": true}]}),
            json!({"accepted": 1, "rejected": [
                {"index": 1, "retryable": true}, {"index": 1, "retryable": false}]}),
            json!("hello"),
        ] {
            assert!(matches!(judge(202, &body), Verdict::Nonsense(_)), "{body}");
        }
        let Verdict::Nonsense(message) = judge(200, "<html>log in</html>") else { panic!() };
        assert!(message.contains("status 200") && message.contains("<html>"), "{message}");
        assert!(matches!(judge(302, ""), Verdict::Nonsense(_)));
    }

    #[test]
    fn each_status_has_its_consequence() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(judge(status, "busy"), Verdict::Retry { .. }), "{status}");
        }
        for (status, reason) in [
            (401, LossReason::Unauthorized),
            (403, LossReason::Unauthorized),
            (404, LossReason::Refused),
            (405, LossReason::Refused),
        ] {
            assert!(matches!(judge(status, "no"), Verdict::Lost(r, _) if r == reason), "{status}");
        }
        assert!(matches!(judge(413, "{}"), Verdict::Halve(LossReason::TooLarge, _)));
        assert!(matches!(judge(400, "{}"), Verdict::Halve(LossReason::Refused, _)));
        assert!(matches!(judge(415, "{}"), Verdict::Unencoded(_)));
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 0_u16..1000, body: Vec<u8>, events in 0_usize..5) {
            let _ = read(&Ok(Response::new(status, body)), events, now());
        }

        #[test]
        fn no_json_panics(status in 200_u16..504, accepted: usize, index: usize, events: usize) {
            let body = json!({"accepted": accepted, "rejected": [{"index": index, "retryable": true}]});
            let _ = read(&Ok(Response::new(status, body.to_string())), events, now());
        }
    }
}
