//! For the tests of programs that log: a transport that records what was sent
//! (feature `test-util`).
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
//! // What is to be tested:
//! client.log(Event::new("ada", "LOGIN").metadata(json!({"page": "home"}))).unwrap();
//!
//! client.flush().await;
//! let login = recorder.only("LOGIN");
//! assert_eq!(login.user_id.as_str(), "ada");
//! assert_eq!(login.metadata.to_map()["page"], "home");
//! recorder.assert_none("LOGOUT");
//! # }
//! # futures_executor::block_on(run());
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use eyego_log_core::wire::IngestRequest;
use eyego_log_core::{LogEntry, Timestamp};

use crate::transport::{BoxFuture, Method, Request, Response, Transport, TransportError};

/// Takes every event, as a server would, and keeps it. Clones are one recorder.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    recorded: Arc<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<LogEntry>,
    /// Answers to give instead, the last one first.
    answers: Vec<Response>,
}

impl Recorder {
    /// A recorder with no event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers the next requests with these, in order, and takes nothing of
    /// them: to test what a program does when its logs are not delivered.
    pub fn answer_next(&self, answers: impl IntoIterator<Item = Response>) {
        let mut recorded = self.lock();
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        answers.append(&mut recorded.answers);
        recorded.answers = answers;
    }

    /// The events so far, in the order in which they arrived. Flush the client
    /// before asking.
    #[must_use]
    pub fn events(&self) -> Vec<LogEntry> {
        self.lock().events.clone()
    }

    /// The events with this action.
    #[must_use]
    pub fn with_action(&self, action: &str) -> Vec<LogEntry> {
        let mut events = self.events();
        events.retain(|event| event.action.as_str() == action);
        events
    }

    /// The event with this action.
    ///
    /// # Panics
    /// There is none, or more than one.
    #[track_caller]
    #[must_use]
    pub fn only(&self, action: &str) -> LogEntry {
        let mut events = self.with_action(action);
        assert_eq!(events.len(), 1, "events with the action {action}: {:?}", self.events());
        events.remove(0)
    }

    /// Fails where there is an event with this action.
    ///
    /// # Panics
    /// There is one.
    #[track_caller]
    pub fn assert_none(&self, action: &str) {
        let events = self.with_action(action);
        assert!(events.is_empty(), "events with the action {action}: {events:?}");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, request: &Request) -> Response {
        let mut recorded = self.lock();
        if let Some(answer) = recorded.answers.pop() {
            return answer;
        }
        if request.method == Method::Get {
            return Response::new(404, r#"{"status":"fail","message":"a recorder has no logs"}"#);
        }
        // Refused once, a compressed body comes again as it is.
        if request.header("content-encoding").is_some() {
            return Response::new(415, "");
        }
        let now = Timestamp::from(std::time::SystemTime::now());
        let mut accepted = 0;
        for line in request.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Ok(event) = IngestRequest::parse(line, now)
                && let Some(id) = event.id
            {
                let is_new = recorded.events.iter().all(|known| known.id != id);
                if is_new {
                    recorded.events.push(event.into_entry(id, now));
                }
                accepted += 1;
            }
        }
        Response::new(202, format!(r#"{{"accepted":{accepted},"rejected":[]}}"#))
    }
}

impl Transport for Recorder {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let answer = self.record(&request);
        Box::pin(std::future::ready(Ok(answer)))
    }
}
