//! Hostile requests: the response is small, whatever the request is.

use serde_json::{Value, json};

use super::{paths, post_as};
use crate::fixture::{JSON, NDJSON, embedded_server, get};

#[tokio::test]
async fn errors_of_an_event_are_bounded() {
    let server = embedded_server().await;
    let unknown = format!("{{{}\"x\":0}}", "\"\":0,".repeat(40_000));
    let nested = format!(
        "{{\"userId\":\"u\",\"action\":\"A\",\"metadata\":{{\"n\":1e999,\"b\":{}[{}0]{}}}}}",
        "{\"b\":".repeat(30),
        "0,".repeat(100_000),
        "}".repeat(30),
    );
    let invalid = format!(
        "{{\"userId\":\"u\",\"action\":\"A\",\"metadata\":{{\"{}\":[{}0]}}}}",
        "é".repeat(50_000),
        "1e999,".repeat(20_000),
    );
    for (body, count, last) in [
        (unknown, 21, "and 39983 more errors"),
        (nested, 1, "metadata.n must be a number"),
        (invalid, 21, "and 19980 more errors"),
    ] {
        let (status, response) = post_as(&server, "/api/v1/logs", JSON, body).await;
        assert_eq!((status, paths(&response).len()), (400, count), "{response}");
        assert!(paths(&response).iter().all(|path| path.chars().count() <= 64), "{response}");
        let message = response["errors"][count - 1]["message"].as_str().unwrap();
        assert!(message.starts_with(last), "{message}");
        assert!(response.to_string().len() < 16 << 10, "{} bytes", response.to_string().len());
    }
}

#[tokio::test]
async fn errors_of_a_batch_are_bounded() {
    let server = embedded_server().await;
    let name = "\u{1f600}".repeat(100);
    let event = format!("{{\"{name}1\":0,\"{name}2\":0}}\n");
    let (status, response) =
        post_as(&server, "/api/v1/logs/batch", NDJSON, event.repeat(10_000)).await;
    assert_eq!(status, 400);
    let rejected = response["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 10_000);
    let listed: usize = rejected.iter().map(|item| item["errors"].as_array().unwrap().len()).sum();
    assert!((900..=1000).contains(&listed), "{listed}");
    assert_eq!(rejected[9_999]["errors"], json!([]));
    assert_eq!(rejected[9_999]["message"], "invalid (4 field errors, not listed)");
    assert!(response.to_string().len() <= 2 << 20, "{} bytes", response.to_string().len());

    let unknown = format!("{{{}\"logs\":[]}}", "\"\":0,".repeat(1_000_000));
    let (status, response) = post_as(&server, "/api/v1/logs/batch", JSON, unknown).await;
    assert_eq!((status, paths(&response).len()), (400, 21));
    assert_eq!(
        response["errors"].as_array().and_then(|list| list.last()),
        Some(&json!({"path": "", "message": "and 999980 more errors"})),
        "{:?}",
        Value::get(&response, "message")
    );
}

#[tokio::test]
async fn queries_are_bounded() {
    let server = embedded_server().await;
    let distinct: Vec<_> = (0..12_000).map(|n| format!("{n:04x}")).collect();
    let filters: Vec<_> = (0..17).map(|n| format!("metadata.{n}=1")).collect();
    let deep: Vec<_> = (0..5).map(|n| format!("metadata.a.b.c.d.e.f.g.{n}=1")).collect();
    for (query, message) in [
        (distinct, "a query may have at most 100 parameters, not 12000"),
        (filters, "metadata must have at most 16 filters, not 17"),
        (deep, "metadata must have shorter paths or fewer filters"),
    ] {
        let (status, response) = get(&server, &format!("/api/v1/logs?{}", query.join("&"))).await;
        assert_eq!(status, 400, "{response}");
        assert!(response["message"].as_str().unwrap().starts_with(message), "{response}");
        assert_eq!(response["errors"].as_array().unwrap().len(), 1, "{response}");
    }
    let range = "from=0000-01-01T00:00:00%2B14:00&to=9999-12-31T23:59:59.9999999999-12:00";
    for path in ["/api/v1/logs", "/api/v1/dead-letters"] {
        let (status, response) = get(&server, &format!("{path}?{range}")).await;
        assert_eq!(status, 200, "{path}: {response}");
    }
}

#[tokio::test]
async fn ndjson_may_have_a_byte_order_mark_and_needs_its_media_type() {
    let server = embedded_server().await;
    let lines = "{\"userId\":\"u\",\"action\":\"A\"}\n{\"userId\":\"u\",\"action\":\"B\"}\n";
    let with_bom = format!("\u{feff}{lines}");
    let (status, response) = post_as(&server, "/api/v1/logs/batch", NDJSON, with_bom).await;
    assert_eq!((status, &response["accepted"]), (202, &json!(2)), "{response}");

    let first = lines.split_inclusive('\n').next().unwrap();
    for (path, body) in
        [("/api/v1/logs/batch", lines), ("/api/v1/logs/batch", first), ("/api/v1/logs", lines)]
    {
        let (status, response) = post_as(&server, path, JSON, body).await;
        assert_eq!(status, 400, "{response}");
        let message = response["message"].as_str().unwrap();
        assert!(message.contains("application/x-ndjson"), "{message}");
    }
}

#[tokio::test]
async fn items_beyond_the_limit_are_counted() {
    let server = embedded_server().await;
    let lines = "0\n".repeat(1_000_000);
    let array = format!("[{}0]", "0,".repeat(999_999));
    for (media, body) in [(NDJSON, lines), (JSON, array)] {
        let (status, response) = post_as(&server, "/api/v1/logs/batch", media, body).await;
        assert_eq!(status, 413);
        let message = "a batch may contain up to 10000 events; this one has 1000000";
        assert_eq!(response["message"], message);
    }
}

#[tokio::test]
async fn id_in_a_path_that_is_not_utf8_is_a_400_in_the_envelope() {
    let server = embedded_server().await;
    for route in ["logs", "dead-letters"] {
        for id in ["%FF", "%00", "abc"] {
            let (status, response) = get(&server, &format!("/api/v1/{route}/{id}")).await;
            assert_eq!((status, paths(&response)), (400, vec!["id"]), "{response}");
        }
        let path = format!("/api/v1/{route}/6968768d81847b87ab93264b?verbose=1");
        let (status, response) = get(&server, &path).await;
        assert_eq!((status, paths(&response)), (400, vec!["verbose"]), "{response}");
    }
}
