//! Access to the server: keys and scopes, rate limits, browsers, TLS, the audit log, and a separate
//! address for operations.

mod audit;
mod browser;
mod exposure;
mod limits;
mod reload;
mod scopes;
mod sdk;
mod tls;

use std::time::Duration;

use serde_json::Value;
use stack::keys::{KeysFile, client_with};
use stack::openapi::{self, Received};
use stack::server::{Server, ServerBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{TIMEOUT, ready, url};

const EVENT: &str = r#"{"userId":"u","action":"A"}"#;

/// The scopes that a key can have, except `erase`, which no route requires yet.
const SCOPES: [&str; 4] = ["ingest", "read", "admin", "metrics"];

fn with_keys(keys: &KeysFile) -> ServerBuilder {
    Server::builder().env("EYEGO_KEYS_FILE", keys.path())
}

/// Starts a server with one key that has every scope, and returns its token.
async fn server_with_token() -> (Server, KeysFile, String) {
    let keys = KeysFile::new().unwrap();
    let token = keys.add("all", &SCOPES).unwrap();
    (ready(with_keys(&keys)).await, keys, token)
}

fn client(token: &str) -> reqwest::Client {
    client_with(Some(token), Duration::from_secs(30)).unwrap()
}

/// A response: its status, its headers and its JSON body.
struct Response {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Response {
    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

async fn send(request: reqwest::RequestBuilder) -> Response {
    let Received { status, headers, body } = openapi::send(request).await.unwrap();
    let text = String::from_utf8(body).unwrap();
    Response { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

async fn get_as(server: &Server, token: &str, path: &str) -> Response {
    send(client(token).get(url(server, path))).await
}

async fn post_as(server: &Server, token: &str, path: &str, media: &str, body: String) -> Response {
    let request = client(token).post(url(server, path)).header("content-type", media);
    send(request.body(body)).await
}

async fn post_event(server: &Server, token: &str) -> Response {
    post_as(server, token, "/api/v1/logs", "application/json", EVENT.to_owned()).await
}

/// Sends bytes over a new connection and returns what is received until the server closes it, or
/// until a response is complete and it does not.
async fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::time::timeout(TIMEOUT, stream.read(&mut buffer)).await;
        let read = read.expect("no response").unwrap_or(0);
        received.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&received);
        let is_complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length
                .and_then(|length| length.parse().ok())
                .is_some_and(|length: usize| body.len() >= length)
        });
        if read == 0 || is_complete {
            return text.into_owned();
        }
    }
}

/// Starts a server that is expected to exit, and returns what it printed.
async fn refused_start(builder: ServerBuilder) -> String {
    let server = builder.launch().await.unwrap();
    let status = server.wait_exit(TIMEOUT).await.unwrap();
    assert!(!status.success(), "{}", server.log());
    server.log()
}

/// Returns the lines of the audit log.
pub(crate) fn audit_lines(server: &Server) -> Vec<Value> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit").collect()
}
