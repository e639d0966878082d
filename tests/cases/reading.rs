//! The reading routes of a running server beside the list.

mod export;
mod stats;
mod tail;

use eyego_log_core::Timestamp;
use serde_json::{Value, json};
use stack::openapi;
use stack::server::Server;

use crate::fixture::{NDJSON, post_bytes, stored, url};

/// Stores these events, and waits until all can be read.
async fn store_all(server: &Server, events: &[Value]) {
    for chunk in events.chunks(1_000) {
        let lines: Vec<_> = chunk.iter().map(Value::to_string).collect();
        let headers = [("content-type", NDJSON)];
        let (status, response) =
            post_bytes(server, "/api/v1/logs/batch", &headers, lines.join("\n")).await;
        assert_eq!(status, 202, "{response}");
        let ids = response["ids"].as_array().unwrap();
        for id in [&ids[0], &ids[ids.len() - 1]] {
            stored(server, id.as_str().unwrap()).await;
        }
    }
}

/// Exports matching events as NDJSON. The response must conform to the OpenAPI document.
async fn exported(server: &Server, query: &str) -> Vec<Value> {
    let request = reqwest::Client::new().get(url(server, &format!("/api/v1/logs/export?{query}")));
    let received = openapi::send(request).await.unwrap();
    assert_eq!(received.status, 200);
    let lines = received.body.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Returns an event at this time.
fn event(n: usize, user: &str, action: &str, millis: i64) -> Value {
    json!({"userId": user, "action": action, "metadata": {"n": n, "page": "home"},
           "timestamp": Timestamp::from_millis(millis).unwrap().to_string()})
}
