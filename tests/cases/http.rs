//! The HTTP API as its callers see it, on the embedded queue and store: what is taken, what is
//! refused, and what the refusal says.

mod api;
mod body;
mod process;
mod read;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde_json::{Value, json};

use self::api::Api;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn paths(body: &Value) -> Vec<&str> {
    let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(|error| error["path"].as_str()).collect()
}

#[tokio::test]
async fn the_seeds_calls_are_answered_as_the_seed_answers() -> Result<()> {
    let api = Api::start().await?;
    let (status, body) = api
        .log(json!({"userId": "user-123", "action": "CLICK_BUTTON",
                    "metadata": {"page": "home", "browser": "chrome"}}))
        .await?;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(body["status"], "success");
    assert_eq!(body["message"], "Log queued successfully");
    let id = body["id"].as_str().context("no id")?;
    let posted = Instant::now();
    let log = api.stored(id).await?;
    assert!(posted.elapsed() < Duration::from_secs(1), "{:?}", posted.elapsed());

    let (status, page) = api.get("/api/v1/logs?userId=user-123").await?;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(page["status"], "success");
    assert_eq!(page["results"], 1);
    assert_eq!(page["page"], 1);
    assert_eq!(page["nextCursor"], Value::Null);
    assert_eq!(page["data"], json!([log]));
    assert_eq!(log["userId"], "user-123");
    assert_eq!(log["action"], "CLICK_BUTTON");
    assert_eq!(log["metadata"], json!({"page": "home", "browser": "chrome"}));
    let timestamp = log["timestamp"].as_str().context("no timestamp")?;
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    Ok(())
}

#[tokio::test]
async fn what_is_stored_comes_back_as_it_went_in() -> Result<()> {
    let api = Api::start().await?;
    let metadata = r#"{"":{"":[]},"a.b":1,"$set":{"$oid":"x"},"big":9223372036854775807,
        "small":-9223372036854775808,"float":1.0,"tiny":5e-324,"text":"\u0000 é 😀 \ud83d\ude00",
        "null":null,"deep":[[[{"x":[true,false]}]]]}"#;
    let body = format!(
        r#"{{"id":"69682D8D81847B87AB93264B","userId":"ü","action":"A","metadata":{metadata},
            "timestamp":"2026-01-15T00:58:05.4429+01:00"}}"#
    );
    let (status, answer) = api.post("/api/v1/logs", JSON, body).await?;
    assert_eq!((status, &answer["id"]), (StatusCode::ACCEPTED, &json!("69682d8d81847b87ab93264b")));
    let log = api.stored("69682d8d81847b87ab93264b").await?;
    assert_eq!(log["timestamp"], "2026-01-14T23:58:05.442Z");
    assert_eq!(log["metadata"], serde_json::from_str::<Value>(metadata)?);
    Ok(())
}

#[tokio::test]
async fn bad_logs_are_refused_with_every_fault_named() -> Result<()> {
    let api = Api::start().await?;
    let two_days_ahead = {
        let now = std::time::SystemTime::now() + Duration::from_secs(2 * 86_400);
        eyego_log_core::Timestamp::from(now).to_string()
    };
    let deep = format!("{}1{}", "{\"a\":".repeat(33), "}".repeat(33));
    let faults: Vec<(String, &[&str])> = vec![
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
        (format!(r#"{{"userId":"u","action":"A","metadata":{deep}}}"#), &["metadata.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"]),
        ("[]".to_owned(), &[""]),
    ];
    for (body, expected) in faults {
        let (status, answer) = api.post("/api/v1/logs", JSON, body.clone()).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer["status"], "fail");
        assert_eq!(paths(&answer), expected, "{body}");
    }
    for (body, expected) in [
        (&b"{\n \"userId\": }"[..], "line 2 column 12"),
        (b"", "empty"),
        (b"{\"userId\":\"\xff\"}", "UTF-8"),
        (b"{} x", "line 1 column 4"),
    ] {
        let (status, answer) = api.post("/api/v1/logs", JSON, body).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains(expected), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn every_failure_comes_in_the_envelope() -> Result<()> {
    let api = Api::with(&[
        ("EYEGO_MAX_EVENT_BYTES", "2 KiB"),
        ("EYEGO_MAX_BODY_BYTES", "64 KiB"),
        ("EYEGO_MAX_BATCH_EVENTS", "3"),
    ])
    .await?;
    let answer = api.client.put(api.url("/api/v1/logs")).body("x".repeat(100_000)).send().await?;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    let allow = answer.headers()["allow"].to_str()?.to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    assert_eq!(answer.json::<Value>().await?["status"], "fail");

    let event =
        |size: usize| json!({"userId": "u", "action": "A", "metadata": {"x": "x".repeat(size)}});
    let line = event(1).to_string();
    let cases: Vec<(&str, &str, String, StatusCode)> = vec![
        ("/api/v1/nothing", JSON, String::new(), StatusCode::NOT_FOUND),
        ("/api/v1/logs", "text/plain", line.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("/api/v1/logs", NDJSON, line.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (
            "/api/v1/logs",
            "application/json; charset=latin1",
            line.clone(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        ("/api/v1/logs", "application/json; charset=UTF-8", line.clone(), StatusCode::ACCEPTED),
        ("/api/v1/logs", JSON, event(3000).to_string(), StatusCode::PAYLOAD_TOO_LARGE),
        ("/api/v1/logs", JSON, event(3_000_000).to_string(), StatusCode::PAYLOAD_TOO_LARGE),
        (
            "/api/v1/logs/batch",
            NDJSON,
            [line.as_str(); 4].join("\n"),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        ("/api/v1/logs/batch", NDJSON, "\n\n".to_owned(), StatusCode::BAD_REQUEST),
        ("/api/v1/logs/batch", JSON, "[]".to_owned(), StatusCode::BAD_REQUEST),
        ("/api/v1/logs/batch", JSON, r#"{"logs":{}}"#.to_owned(), StatusCode::BAD_REQUEST),
        ("/api/v1/logs/batch", JSON, r#"{"logs":[],"x":1}"#.to_owned(), StatusCode::BAD_REQUEST),
    ];
    for (path, media, body, expected) in cases {
        let (status, answer) = api.post(path, media, body).await?;
        assert_eq!(status, expected, "{path} {media} {answer}");
        let fails = if status.is_success() { "success" } else { "fail" };
        assert_eq!(answer["status"], fails);
        assert!(answer["message"].is_string());
    }
    let headers = [("content-type", JSON), ("content-encoding", "br")];
    let (status, _) = api.post_with("/api/v1/logs", &headers, line).await?;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    Ok(())
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() -> Result<()> {
    let api = Api::start().await?;
    let answer =
        api.client.get(api.url("/nothing")).header("x-request-id", "mine-1").send().await?;
    assert_eq!(answer.headers()["x-request-id"], "mine-1");
    let answer = api.client.get(api.url("/health/live")).send().await?;
    assert_eq!(answer.headers()["x-request-id"].len(), 24);
    Ok(())
}

#[tokio::test]
async fn each_item_of_a_batch_is_judged_by_itself() -> Result<()> {
    let api = Api::start().await?;
    let id = "69682d8d81847b87ab93264b";
    let good = json!({"userId": "batch", "action": "A"}).to_string();
    let named = json!({"userId": "batch", "action": "A", "id": id}).to_string();
    let mut body =
        format!("{good}\n\n  \r\n{{\"userId\":\"\",\"action\":\"A\"}}\nnonsense\n").into_bytes();
    body.extend_from_slice(b"{\"userId\":\"\xff\",\"action\":\"A\"}\n");
    body.extend_from_slice(named.as_bytes());
    let (status, answer) = api.post("/api/v1/logs/batch", NDJSON, body).await?;
    assert_eq!(status, StatusCode::MULTI_STATUS, "{answer}");
    assert_eq!(answer["accepted"], 2);
    let ids = answer["ids"].as_array().context("no ids")?;
    assert_eq!(ids.len(), 5);
    assert_eq!(ids[1..], [Value::Null, Value::Null, Value::Null, json!(id)]);
    let rejected = answer["rejected"].as_array().context("no rejected")?;
    let indexes: Vec<_> = rejected.iter().map(|item| item["index"].as_u64()).collect();
    assert_eq!(indexes, [Some(1), Some(2), Some(3)]);
    assert_eq!(rejected[0]["errors"][0]["path"], "userId");
    assert!(rejected.iter().all(|item| item["code"] == "invalid" && item["retryable"] == false));
    api.stored(id).await?;
    api.stored(ids[0].as_str().context("no id")?).await?;

    for body in [format!("[{named}]"), format!("{{\"logs\":[{named}]}}")] {
        let (status, answer) = api.post("/api/v1/logs/batch", JSON, body).await?;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(answer["accepted"], 1);
        assert_eq!(answer.get("ids"), None, "the caller knows them");
    }
    let bad =
        r#"[{"userId":"","action":"A"},{"userId":"u","action":"A","metadata":{"x":"\ud800"}}]"#;
    let (status, answer) = api.post("/api/v1/logs/batch", JSON, bad).await?;
    assert_eq!((status, &answer["accepted"]), (StatusCode::BAD_REQUEST, &json!(0)));
    Ok(())
}

#[tokio::test]
async fn an_idempotency_key_makes_a_retry_the_same_log() -> Result<()> {
    let api = Api::start().await?;
    let headers = [("content-type", JSON), ("idempotency-key", "order-17")];
    let body = json!({"userId": "u", "action": "A"}).to_string();
    let (_, first) = api.post_with("/api/v1/logs", &headers, body.clone()).await?;
    let (_, second) = api.post_with("/api/v1/logs", &headers, body.clone()).await?;
    assert_eq!(first["id"], second["id"]);
    let other = json!({"userId": "v", "action": "A"}).to_string();
    let (_, third) = api.post_with("/api/v1/logs", &headers, other.clone()).await?;
    assert_ne!(first["id"], third["id"]);

    let headers = [("content-type", NDJSON), ("idempotency-key", "batch-1")];
    let whole = format!("{body}\n{other}\n{body}");
    let (_, all) = api.post_with("/api/v1/logs/batch", &headers, whole).await?;
    let (_, part) = api.post_with("/api/v1/logs/batch", &headers, other).await?;
    assert_eq!(part["ids"][0], all["ids"][1], "a part resent is the same logs");
    assert_ne!(all["ids"][0], all["ids"][2], "equal items are two logs");

    for key in ["", "with space", &"x".repeat(256)] {
        let headers = [("content-type", JSON), ("idempotency-key", key)];
        let (status, answer) = api.post_with("/api/v1/logs", &headers, body.clone()).await?;
        assert_eq!((status, paths(&answer)), (StatusCode::BAD_REQUEST, vec!["Idempotency-Key"]));
    }
    Ok(())
}
