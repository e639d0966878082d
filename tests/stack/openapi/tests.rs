//! Each kind of violation is found.

use super::*;

fn received(status: u16, media_type: &str, body: &str) -> Received {
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {media_type}\r\nx-request-id: 1\r\nallow: GET\r\n\r\n{body}"
    );
    Received::parse(head.as_bytes()).unwrap()
}

fn violation(method: &str, target: &str, response: &Received) -> Option<String> {
    let sent = Sent { method, target, media_type: None, body: b"" };
    check(sent, response).err().map(|error| format!("{error:#}"))
}

const JSON: &str = "application/json";
const EVENT: &str = r#"{"id":"69682d8d81847b87ab93264b","userId":"u","action":"A",
    "timestamp":"2026-01-14T23:58:05.442Z","metadata":{}}"#;

#[test]
fn each_violation_is_found() {
    let path = "/api/v1/logs/69682d8d81847b87ab93264b";
    let event = |body: &str| received(200, JSON, body);
    let valid = event(&format!(r#"{{"status":"success","data":{EVENT}}}"#));
    assert_eq!(violation("GET", path, &valid), None);
    let failure = r#"{"status":"fail","message":"m"}"#;
    for (target, response, expected) in [
        (path, received(418, JSON, failure), "status is not documented"),
        (path, received(409, JSON, failure), "status is not documented"),
        (path, received(200, "text/html", "x"), "media type is not documented"),
        (path, event(r#"{"status":"success"}"#), "\"data\" is a required property"),
        (path, event(r#"{"status":"done","data":{}}"#), "\"done\""),
        (
            path,
            event(&format!(r#"{{"status":"success","data":{EVENT},"extra":1}}"#)),
            "'extra' was unexpected",
        ),
        (
            path,
            event(&format!(r#"{{"status":"success","data":{}}}"#, EVENT.replace("Z\"", "\""))),
            "date-time",
        ),
        (path, received(401, JSON, failure), "no header www-authenticate"),
        (path, received(503, JSON, failure), "no header retry-after"),
        ("/api/v1/nothing", received(200, JSON, "{}"), "route is not documented"),
    ] {
        let found = violation("GET", target, &response).unwrap_or_default();
        assert!(found.contains(expected), "{target}: {found}");
    }
    let found = violation("GET", &format!("{path}?verbose=1"), &valid).unwrap_or_default();
    assert!(found.contains("the parameter verbose is not documented"), "{found}");
}

#[test]
fn each_part_of_a_stream_is_checked() {
    let event = EVENT.replace('\n', "");
    let without_zone = event.replace("Z\"", "\"");
    let path = "/api/v1/logs/export";
    let lines = |text: &str| {
        let mut lines = received(200, "application/x-ndjson", text);
        lines.headers.insert("content-disposition", "attachment".parse().unwrap());
        lines
    };
    assert_eq!(violation("GET", path, &lines(&format!("{event}\n{event}\n"))), None);
    let found = violation("GET", path, &lines(&format!("{event}\n{without_zone}\n")));
    assert!(found.unwrap_or_default().contains("date-time"));
    let mut compressed = lines("");
    compressed.body = zstd::encode_all(without_zone.as_bytes(), 1).unwrap();
    compressed.headers.insert(CONTENT_ENCODING, "zstd".parse().unwrap());
    assert!(violation("GET", path, &compressed).unwrap_or_default().contains("date-time"));

    let stream = |text: &str| received(200, "text/event-stream", text);
    let valid = format!(": nothing new\n\nid: t\n\nevent: log\ndata: {event}\n\n");
    let skipped = "event: skipped\ndata: {\"count\":3}\n\n";
    assert_eq!(violation("GET", "/api/v1/logs/tail", &stream(&(valid.clone() + skipped))), None);
    assert!(check_messages(&(valid + skipped)).is_ok());
    for wrong in [&skipped.replace('3', "0"), &format!("data: {without_zone}\n\n")] {
        assert!(violation("GET", "/api/v1/logs/tail", &stream(wrong)).is_some(), "{wrong}");
        assert!(check_messages(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn routes_and_methods_that_do_not_exist_have_documented_responses() {
    let failure = r#"{"status":"fail","message":"m"}"#;
    assert_eq!(violation("GET", "/nothing", &received(404, JSON, failure)), None);
    assert_eq!(violation("PUT", "/api/v1/logs", &received(405, JSON, failure)), None);
    assert!(violation("PUT", "/api/v1/logs", &received(404, JSON, failure)).is_some());
}
