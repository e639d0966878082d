//! The HTTP API as callers see it, on the embedded queue and store: which requests are accepted, and
//! the error responses to all others.

mod body;
mod bounds;
mod connections;
mod envelope;
mod process;
mod read;

use std::time::Duration;

use serde_json::{Value, json};
use stack::openapi;
use stack::server::Server;

use crate::fixture::{
    JSON, NDJSON, embedded_server, get, post_bytes, post_log, ready, stored, url,
};

async fn server_with(env: &[(&str, &str)]) -> Server {
    let builder = Server::builder();
    ready(env.iter().fold(builder, |builder, (name, value)| builder.env(name, value))).await
}

async fn post_as(
    server: &Server,
    path: &str,
    media: &str,
    body: impl Into<Vec<u8>>,
) -> (u16, Value) {
    post_bytes(server, path, &[("content-type", media)], body).await
}

/// Returns the paths of the field errors.
pub(crate) fn paths(body: &Value) -> Vec<&str> {
    let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(|error| error["path"].as_str()).collect()
}

#[tokio::test]
async fn requests_of_the_legacy_service_get_its_responses() {
    let server = embedded_server().await;
    let event = json!({"userId": "user-123", "action": "CLICK_BUTTON",
                       "metadata": {"page": "home", "browser": "chrome"}});
    let (status, response) = post_log(&server, &event).await;
    assert_eq!(status, 202);
    assert_eq!(response["status"], "success");
    assert_eq!(response["message"], "Log queued successfully");
    let id = response["id"].as_str().unwrap();
    let log = stored(&server, id).await;

    let (status, page) = get(&server, "/api/v1/logs?userId=user-123").await;
    assert_eq!(status, 200);
    assert_eq!(page["status"], "success");
    assert_eq!(page["results"], 1);
    assert_eq!(page["page"], 1);
    assert_eq!(page["nextCursor"], Value::Null);
    assert_eq!(page["data"], json!([log]));
    assert_eq!(log["userId"], "user-123");
    assert_eq!(log["action"], "CLICK_BUTTON");
    assert_eq!(log["metadata"], json!({"page": "home", "browser": "chrome"}));
    let timestamp = log["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
}

#[tokio::test]
async fn stored_log_is_returned_unchanged() {
    let server = embedded_server().await;
    let metadata = r#"{"":{"":[]},"a.b":1,"$set":{"$oid":"x"},"big":9223372036854775807,
        "small":-9223372036854775808,"float":1.0,"tiny":5e-324,"text":"\u0000 é 😀 \ud83d\ude00",
        "null":null,"deep":[[[{"x":[true,false]}]]]}"#;
    let body = format!(
        r#"{{"id":"69682D8D81847B87AB93264B","userId":"ü","action":"A","metadata":{metadata},
            "timestamp":"2026-01-15T00:58:05.4429+01:00"}}"#
    );
    let (status, response) = post_as(&server, "/api/v1/logs", JSON, body).await;
    assert_eq!((status, &response["id"]), (202, &json!("69682d8d81847b87ab93264b")));
    let log = stored(&server, "69682d8d81847b87ab93264b").await;
    assert_eq!(log["timestamp"], "2026-01-14T23:58:05.442Z");
    assert_eq!(log["metadata"], serde_json::from_str::<Value>(metadata).unwrap());
}

#[tokio::test]
async fn invalid_event_returns_400_with_every_error() {
    let server = embedded_server().await;
    let two_days_ahead = {
        let now = std::time::SystemTime::now() + Duration::from_secs(2 * 86_400);
        eyego_log_core::Timestamp::from(now).to_string()
    };
    let deep = format!("{}1{}", "{\"a\":".repeat(33), "}".repeat(33));
    let invalid: Vec<(String, &[&str])> = vec![
        (r#"{"action":"A"}"#.to_owned(), &["userId"]),
        (r#"{"userId":"","action":"A"}"#.to_owned(), &["userId"]),
        (r#"{"userId":"u","action":7}"#.to_owned(), &["action"]),
        (format!(r#"{{"userId":"{}","action":"A"}}"#, "x".repeat(257)), &["userId"]),
        (format!(r#"{{"userId":"u","action":"{}"}}"#, "x".repeat(129)), &["action"]),
        (r#"{"userId":"u\u0000","action":"A"}"#.to_owned(), &["userId"]),
        (r#"{"userId":"u","action":"A","metadata":[]}"#.to_owned(), &["metadata"]),
        (r#"{"userId":"u","action":"A","timestamp":"2026-01-01T00:00:00"}"#.to_owned(), &["timestamp"]),
        (format!(r#"{{"userId":"u","action":"A","timestamp":"{two_days_ahead}"}}"#), &["timestamp"]),
        (r#"{"userId":"u","action":"A","colour":1}"#.to_owned(), &["colour"]),
        (r#"{"userId":"u","userId":"u","action":"A"}"#.to_owned(), &["userId"]),
        (r#"{"userId":"u","action":"A","id":"123"}"#.to_owned(), &["id"]),
        (
            r#"{"userId":1,"action":"","metadata":{"a":[9223372036854775808,1e999],"b":{"c":"\udead"},"d\u0000":1,"e":1,"e":2}}"#
                .to_owned(),
            &["userId", "metadata.a[0]", "metadata.a[1]", "metadata.b.c", "metadata[\"d\\u0000\"]", "metadata.e", "action"],
        ),
        (format!(r#"{{"userId":"u","action":"A","metadata":{deep}}}"#), &["metadata.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.…"]),
        ("[]".to_owned(), &[""]),
    ];
    for (body, expected) in invalid {
        let (status, response) = post_as(&server, "/api/v1/logs", JSON, body.clone()).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(response["status"], "fail");
        assert_eq!(paths(&response), expected, "{body}");
    }
    for (body, expected) in [
        (&b"{\n \"userId\": }"[..], "line 2 column 12"),
        (b"", "empty"),
        (b"{\"userId\":\"\xff\"}", "UTF-8"),
        (b"{} x", "line 1 column 4"),
    ] {
        let (status, response) = post_as(&server, "/api/v1/logs", JSON, body).await;
        assert_eq!(status, 400);
        let message = response["message"].as_str().unwrap_or_default();
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn every_error_has_the_envelope() {
    let server = server_with(&[
        ("EYEGO_MAX_EVENT_BYTES", "2 KiB"),
        ("EYEGO_MAX_BODY_BYTES", "64 KiB"),
        ("EYEGO_MAX_BATCH_EVENTS", "3"),
    ])
    .await;
    let client = reqwest::Client::new();
    let put = client.put(url(&server, "/api/v1/logs")).body("x".repeat(100_000));
    let response = openapi::send(put).await.unwrap();
    assert_eq!(response.status, 405);
    let allow = response.headers["allow"].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["status"], "fail");

    let event =
        |size: usize| json!({"userId": "u", "action": "A", "metadata": {"x": "x".repeat(size)}});
    let line = event(1).to_string();
    let cases: Vec<(&str, &str, String, u16)> = vec![
        ("/api/v1/nothing", JSON, String::new(), 404),
        ("/api/v1/logs", "text/plain", line.clone(), 415),
        ("/api/v1/logs", NDJSON, line.clone(), 415),
        ("/api/v1/logs", "application/json; charset=latin1", line.clone(), 415),
        ("/api/v1/logs", "application/json; charset=UTF-8", line.clone(), 202),
        ("/api/v1/logs", JSON, event(3000).to_string(), 413),
        ("/api/v1/logs", JSON, event(3_000_000).to_string(), 413),
        ("/api/v1/logs/batch", NDJSON, [line.as_str(); 4].join("\n"), 413),
        ("/api/v1/logs/batch", NDJSON, "\n\n".to_owned(), 400),
        ("/api/v1/logs/batch", JSON, "[]".to_owned(), 400),
        ("/api/v1/logs/batch", JSON, r#"{"logs":{}}"#.to_owned(), 400),
        ("/api/v1/logs/batch", JSON, r#"{"logs":[],"x":1}"#.to_owned(), 400),
    ];
    for (path, media, body, expected) in cases {
        let (status, response) = post_as(&server, path, media, body).await;
        assert_eq!(status, expected, "{path} {media} {response}");
        let expected = if status == 202 { "success" } else { "fail" };
        assert_eq!(response["status"], expected);
        assert!(response["message"].is_string());
    }
    let headers = [("content-type", JSON), ("content-encoding", "br")];
    let (status, _) = post_bytes(&server, "/api/v1/logs", &headers, line).await;
    assert_eq!(status, 415);
}

#[tokio::test]
async fn request_id_is_echoed_or_generated() {
    let server = embedded_server().await;
    let client = reqwest::Client::new();
    let response =
        client.get(url(&server, "/nothing")).header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let response = client.get(url(&server, "/health/live")).send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"].len(), 24);
}

#[tokio::test]
async fn each_event_of_a_batch_is_validated_separately() {
    let server = embedded_server().await;
    let id = "69682d8d81847b87ab93264b";
    let good = json!({"userId": "batch", "action": "A"}).to_string();
    let named = json!({"userId": "batch", "action": "A", "id": id}).to_string();
    let mut body =
        format!("{good}\n\n  \r\n{{\"userId\":\"\",\"action\":\"A\"}}\nnot JSON\n").into_bytes();
    body.extend_from_slice(b"{\"userId\":\"\xff\",\"action\":\"A\"}\n");
    body.extend_from_slice(named.as_bytes());
    let (status, response) = post_as(&server, "/api/v1/logs/batch", NDJSON, body).await;
    assert_eq!(status, 207, "{response}");
    assert_eq!(response["accepted"], 2);
    let ids = response["ids"].as_array().unwrap();
    assert_eq!(ids.len(), 5);
    assert_eq!(ids[1..], [Value::Null, Value::Null, Value::Null, json!(id)]);
    let rejected = response["rejected"].as_array().unwrap();
    let indexes: Vec<_> = rejected.iter().map(|item| item["index"].as_u64()).collect();
    assert_eq!(indexes, [Some(1), Some(2), Some(3)]);
    assert_eq!(rejected[0]["errors"][0]["path"], "userId");
    assert!(rejected.iter().all(|item| item["code"] == "invalid" && item["retryable"] == false));
    stored(&server, id).await;
    stored(&server, ids[0].as_str().unwrap()).await;

    for body in [format!("[{named}]"), format!("{{\"logs\":[{named}]}}")] {
        let (status, response) = post_as(&server, "/api/v1/logs/batch", JSON, body).await;
        assert_eq!(status, 202);
        assert_eq!(response["accepted"], 1);
        assert_eq!(response.get("ids"), None, "the caller set the ids");
    }
    let bad =
        r#"[{"userId":"","action":"A"},{"userId":"u","action":"A","metadata":{"x":"\ud800"}}]"#;
    let (status, response) = post_as(&server, "/api/v1/logs/batch", JSON, bad).await;
    assert_eq!((status, &response["accepted"]), (400, &json!(0)));
}

#[tokio::test]
async fn retry_with_an_idempotency_key_is_the_same_log() {
    let server = embedded_server().await;
    let headers = [("content-type", JSON), ("idempotency-key", "order-17")];
    let body = json!({"userId": "u", "action": "A"}).to_string();
    let (_, first) = post_bytes(&server, "/api/v1/logs", &headers, body.clone()).await;
    let (_, second) = post_bytes(&server, "/api/v1/logs", &headers, body.clone()).await;
    assert_eq!(first["id"], second["id"]);
    let other = json!({"userId": "v", "action": "A"}).to_string();
    let (_, third) = post_bytes(&server, "/api/v1/logs", &headers, other.clone()).await;
    assert_ne!(first["id"], third["id"]);

    let headers = [("content-type", NDJSON), ("idempotency-key", "batch-1")];
    let whole = format!("{body}\n{other}\n{body}");
    let (_, all) = post_bytes(&server, "/api/v1/logs/batch", &headers, whole).await;
    let (_, part) = post_bytes(&server, "/api/v1/logs/batch", &headers, other).await;
    assert_eq!(part["ids"][0], all["ids"][1], "a part that is sent again has the same ids");
    assert_ne!(all["ids"][0], all["ids"][2], "equal events are different logs");

    for key in ["", "with space", &"x".repeat(256)] {
        let headers = [("content-type", JSON), ("idempotency-key", key)];
        let (status, response) = post_bytes(&server, "/api/v1/logs", &headers, body.clone()).await;
        assert_eq!((status, paths(&response)), (400, vec!["Idempotency-Key"]));
    }
}
