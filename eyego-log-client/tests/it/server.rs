//! A simulated server: the test chooses its responses and sees its requests.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eyego_log_client::{Client, ClientBuilder};
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// A request that the server received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) encoding: Option<String>,
    pub(crate) events: Vec<Value>,
}

impl Seen {
    pub(crate) fn users(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["userId"].as_str().unwrap()).collect()
    }
}

type Script = dyn Fn(usize, &Seen) -> ResponseTemplate + Send + Sync;

struct Scripted {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Box<Script>,
}

impl Respond for Scripted {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let encoding = request.headers.get("content-encoding");
        let encoding = encoding.map(|value| value.to_str().unwrap().to_owned());
        let body = match encoding.as_deref() {
            Some("zstd") => zstd::decode_all(&request.body[..]).unwrap(),
            _ => request.body.clone(),
        };
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        let seen = Seen { at: Instant::now(), encoding, events };
        let count = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        (self.script)(count, &seen)
    }
}

/// A running server.
pub(crate) struct FakeServer {
    pub(crate) server: MockServer,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FakeServer {
    /// Starts a server. `script` creates the response to request `n`, counted
    /// from 0.
    pub(crate) async fn start(
        script: impl Fn(usize, &Seen) -> ResponseTemplate + Send + Sync + 'static,
    ) -> Self {
        // Not from wiremock's pool: a client of an earlier test could still
        // send to a server that is used again.
        let server = MockServer::builder().start().await;
        let seen = Arc::default();
        let scripted = Scripted { seen: Arc::clone(&seen), script: Box::new(script) };
        Mock::given(any()).respond_with(scripted).mount(&server).await;
        Self { server, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Creates a builder for a client of this server with short delays.
    pub(crate) fn client(&self) -> ClientBuilder {
        quick(&self.server.uri())
    }
}

/// Creates a builder for a client with short delays.
pub(crate) fn quick(url: &str) -> ClientBuilder {
    Client::builder(url)
        .linger(Duration::from_millis(5))
        .retry(Duration::from_millis(5), Duration::from_millis(20))
        .on_problem(|_| {})
}

/// Creates the response of a custom transport.
pub(crate) fn response(status: u16, body: &str) -> eyego_log_client::transport::Response {
    let mut response = eyego_log_client::transport::Response::new(body.to_owned().into());
    *response.status_mut() = status.try_into().unwrap();
    response
}

/// Accepts all events of a request to a custom transport.
pub(crate) fn accept(
    request: &eyego_log_client::transport::Request,
) -> eyego_log_client::transport::Response {
    let count = request.body().iter().filter(|byte| **byte == b'\n').count();
    response(202, &json!({"accepted": count, "rejected": []}).to_string())
}

/// The real server's response if it accepts all events.
pub(crate) fn accepted(seen: &Seen) -> ResponseTemplate {
    let body = json!({"status": "success", "message": "all logs queued",
        "accepted": seen.events.len(), "rejected": []});
    ResponseTemplate::new(202).set_body_json(body)
}

/// The real server's response if it rejects some events, given as
/// `(index, code, retryable)`.
pub(crate) fn partly(
    status: u16,
    seen: &Seen,
    rejected: &[(usize, &str, bool)],
) -> ResponseTemplate {
    let accepted = seen.events.len() - rejected.len();
    let rejected: Vec<Value> = rejected
        .iter()
        .map(|(index, code, retryable)| {
            json!({"index": index, "id": seen.events[*index]["id"], "code": code,
                "message": format!("rejected as {code}"), "errors": [], "retryable": retryable})
        })
        .collect();
    let body = json!({"status": "success", "message": "some events were rejected", "accepted": accepted,
        "rejected": rejected});
    ResponseTemplate::new(status).set_body_json(body)
}

/// The real server's response if it refuses a whole request.
pub(crate) fn refused(status: u16) -> ResponseTemplate {
    let body = json!({"status": "fail", "message": "refused by the server"});
    ResponseTemplate::new(status).set_body_json(body)
}
