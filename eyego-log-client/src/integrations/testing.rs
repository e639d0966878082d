//! Helps to test programs that log: a transport that records the events it is
//! sent (crate feature `test-util`).
//!
//! ```
//! use eyego_log_client::testing::Recorder;
//! use eyego_log_client::{Client, Event};
//! use serde_json::json;
//!
//! # async fn run() {
//! let recorder = Recorder::new();
//! let client = Client::builder("http://test").transport(recorder.clone()).build().unwrap();
//!
//! // The code under test:
//! client.log(Event::new("ada", "LOGIN").metadata(json!({"page": "home"}))).unwrap();
//!
//! assert!(client.flush().await.all_delivered());
//! let login = recorder.single("LOGIN");
//! assert_eq!(login.user_id.as_str(), "ada");
//! assert_eq!(login.metadata.to_map()["page"], "home");
//! recorder.assert_none("LOGOUT");
//! # }
//! # futures_executor::block_on(run());
//! ```

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eyego_log_core::wire::IngestRequest;
use eyego_log_core::{LogEntry, LogId, Timestamp};

use http::header::CONTENT_ENCODING;
use http::{Method, StatusCode};

use crate::transport::{BoxFuture, Bytes, Request, Response, Transport, TransportError};

/// Creates a response without headers, such as one for
/// [`Recorder::respond_with`].
///
/// ```
/// use eyego_log_client::testing::response;
/// use eyego_log_client::transport::http::StatusCode;
///
/// let busy = response(StatusCode::SERVICE_UNAVAILABLE, "");
/// assert_eq!(busy.status(), 503);
/// ```
#[must_use]
pub fn response(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

/// A transport that accepts and records every event. Clones share the recorded
/// events. For [`send_stored`](crate::Client::send_stored) an event is stored at once,
/// and the server is [ready](crate::Client::readiness). Other calls that read or erase
/// find nothing or fail with status 404.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    recorded: Arc<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<LogEntry>,
    /// The ids of `events`.
    ids: HashSet<LogId>,
    /// Responses to return instead of recording.
    responses: VecDeque<Response>,
}

impl Recorder {
    /// Creates a recorder without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns these responses to the next requests, in order, and records
    /// nothing for them. Use this to test how a program behaves when its events
    /// are not delivered.
    pub fn respond_with(&self, responses: impl IntoIterator<Item = Response>) {
        self.lock().responses.extend(responses);
    }

    /// Returns the recorded events in the order of their arrival. Flush the
    /// client first.
    #[must_use]
    pub fn events(&self) -> Vec<LogEntry> {
        self.lock().events.clone()
    }

    /// Returns the recorded events with this action.
    #[must_use]
    pub fn with_action(&self, action: &str) -> Vec<LogEntry> {
        let mut events = self.events();
        events.retain(|event| event.action.as_str() == action);
        events
    }

    /// Returns the only recorded event with this action.
    ///
    /// # Panics
    /// Panics if there is no event with this action, or more than one.
    #[track_caller]
    #[must_use]
    pub fn single(&self, action: &str) -> LogEntry {
        let mut events = self.with_action(action);
        assert_eq!(events.len(), 1, "events with the action {action}: {:?}", self.events());
        events.remove(0)
    }

    /// Asserts that there is no recorded event with this action.
    ///
    /// # Panics
    /// Panics if there is one.
    #[track_caller]
    pub fn assert_none(&self, action: &str) {
        let events = self.with_action(action);
        assert!(events.is_empty(), "events with the action {action}: {events:?}");
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, request: &Request) -> Response {
        let mut recorded = self.lock();
        if let Some(response) = recorded.responses.pop_front() {
            return response;
        }
        let path = request.uri().path();
        if path.ends_with("/health/ready") {
            return response(StatusCode::OK, r#"{"status":"success","message":"ready"}"#);
        }
        if request.method() != Method::POST || path.contains("/dead-letters") {
            return response(
                StatusCode::NOT_FOUND,
                r#"{"status":"fail","message":"a recorder only records events"}"#,
            );
        }
        let Some(body) = decompressed(request) else {
            // The client then sends the body again, uncompressed.
            return response(StatusCode::UNSUPPORTED_MEDIA_TYPE, "");
        };
        let now = Timestamp::from(std::time::SystemTime::now());
        let mut accepted = 0;
        let mut last_id = None;
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Ok(event) = IngestRequest::parse(line, now)
                && let Some(id) = event.id
            {
                if recorded.ids.insert(id) {
                    recorded.events.push(event.into_entry(id, now));
                }
                accepted += 1;
                last_id = Some(id);
            }
        }
        // `send_stored` asks for the single event that it has just delivered.
        if path.ends_with("/logs")
            && let Some(id) = last_id
        {
            let body = format!(r#"{{"status":"success","message":"stored","id":"{id}"}}"#);
            return response(StatusCode::OK, body);
        }
        response(StatusCode::ACCEPTED, format!(r#"{{"accepted":{accepted},"rejected":[]}}"#))
    }
}

/// Returns the body without its compression, which is always zstd.
fn decompressed(request: &Request) -> Option<Cow<'_, [u8]>> {
    let body = request.body();
    if !request.headers().contains_key(CONTENT_ENCODING) {
        return Some(Cow::Borrowed(body));
    }
    #[cfg(feature = "zstd")]
    return zstd::decode_all(&body[..]).ok().map(Cow::Owned);
    #[cfg(not(feature = "zstd"))]
    None
}

impl Transport for Recorder {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let response = self.record(&request);
        Box::pin(std::future::ready(Ok(response)))
    }
}
