//! Requests that are refused before a handler sees them: each gets a response with the envelope.

use serde_json::{Value, json};
use stack::openapi::{self, Received, Sent};
use stack::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{paths, post_as, server_with};
use crate::fixture::{JSON, embedded_server, get, logs, post_bytes, url};

/// Sends bytes on a connection of their own. Returns the status and the body of the response.
async fn raw(server: &Server, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let received = Received::parse(&response).unwrap();
    // A head that cannot be read has no target. Its response is like that to an unknown route.
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap_or("/nothing"));
    let target = if target.starts_with('/') { target } else { "/nothing" };
    openapi::check(Sent { method, target, media_type: None, body: b"" }, &received).unwrap();
    (received.status, serde_json::from_slice(&received.body).unwrap())
}

#[tokio::test]
async fn heads_that_the_parser_refuses_get_the_envelope() {
    let server = embedded_server().await;
    for (request, status, message) in [
        ("NOT HTTP\r\n\r\n".to_owned(), 400, "malformed request head"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400, "malformed request head"),
        (
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            400,
            "malformed request head",
        ),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000)), 431, "65536 bytes"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)), 431, "100 headers"),
    ] {
        let (actual, body) = raw(&server, &request).await;
        assert_eq!((actual, &body["status"]), (status, &json!("fail")), "{body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    }
}

#[tokio::test]
async fn repeated_singleton_headers_return_400_with_their_name() {
    let server = embedded_server().await;
    let event = r#"{"userId":"u","action":"A"}"#;
    for (name, value) in [
        ("Host", "x"),
        ("Content-Type", JSON),
        ("Content-Encoding", "identity"),
        ("Idempotency-Key", "k"),
    ] {
        let header = format!("{name}: {value}\r\n");
        let request = format!(
            "POST /api/v1/logs HTTP/1.1\r\ncontent-length: {}\r\ncontent-type: {JSON}\r\nhost: localhost\r\n\
             connection: close\r\n{header}{header}\r\n{event}",
            event.len()
        );
        let (status, body) = raw(&server, &request).await;
        assert_eq!((status, paths(&body)), (400, vec![name]), "{body}");
        assert_eq!(body["message"], format!("{name} must not be repeated"));
    }
    let request = "GET /health/live HTTP/1.1\r\nhost: localhost\r\naccept: a\r\naccept: b\r\nconnection: close\r\n\r\n";
    assert_eq!(raw(&server, request).await.0, 200, "other headers may be repeated");
}

/// Returns the method and the path of each route that the server describes.
async fn routes(server: &Server) -> Vec<(reqwest::Method, String)> {
    let (_, document) = get(server, "/openapi.json").await;
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            routes.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    assert!(routes.len() >= 19, "{routes:?}");
    routes
}

/// Sends a request of a route, with `segment` in the place of each variable of its path.
async fn send_to(
    server: &Server,
    method: &reqwest::Method,
    path: &str,
    segment: &str,
) -> (u16, String) {
    let path =
        path.replace("{id}", segment).replace("{userId}", segment).replace("{name}", segment);
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    (status, response)
}

#[tokio::test]
async fn unknown_parameters_are_errors_on_every_route_but_those_of_pages() {
    let server = embedded_server().await;
    let is_page = |path: &str| ["/", "/docs", "/docs/"].contains(&path);
    for (method, path) in routes(&server).await.into_iter().filter(|(_, path)| !is_page(path)) {
        let segment = if path.contains("{name}") { "app.js" } else { "69682d8d81847b87ab93264b" };
        for query in ["verbose=1", "verbose=1&verbose=2", "%FF=1"] {
            let (status, response) =
                send_to(&server, &method, &format!("{path}?{query}"), segment).await;
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            let expected = if query == "%FF=1" { "%FF" } else { "verbose" };
            assert_eq!(status, 400, "{method} {path}?{query}: {body}");
            assert!(paths(&body).contains(&expected), "{method} {path}?{query}: {body}");
        }
    }
}

#[tokio::test]
async fn every_route_has_the_envelope_for_any_path_and_method() {
    let server = embedded_server().await;
    let long = "x".repeat(20_000);
    for (method, path) in routes(&server).await {
        for segment in ["%FF", "%00", &long].into_iter().filter(|_| path.contains('{')) {
            if path.contains("{userId}") && segment != "%FF" {
                // A user of that name may exist.
                continue;
            }
            let (status, response) = send_to(&server, &method, &path, segment).await;
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!([400, 404].contains(&status), "{method} {path}: {response}");
            assert!(head.contains("content-type: application/json"), "{method} {path}: {head}");
            assert!(body.len() < 400, "{method} {path}: {} bytes", body.len());
            assert!(body.starts_with("{\"status\":\"fail\""), "{method} {path}: {body}");
        }
        let (status, response) =
            send_to(&server, &reqwest::Method::PUT, &path, "69682d8d81847b87ab93264b").await;
        let allow = response.lines().find(|line| line.starts_with("allow: ")).unwrap_or_default();
        assert_eq!(status, 405, "{path}: {response}");
        assert!(allow.contains(method.as_str()), "{path}: {response}");
        assert!(response.contains("{\"status\":\"fail\""), "{path}: {response}");
    }
}

#[tokio::test]
async fn quoted_text_in_a_message_is_truncated() {
    let server = embedded_server().await;
    let long = "x".repeat(20_000);
    let (status, body) = get(&server, &format!("/{long}")).await;
    assert_eq!(status, 404);
    assert_eq!(body["message"], format!("no such route: /{}…", "x".repeat(62)));
    for (name, value) in [
        ("content-type", long.clone()),
        ("content-type", format!("{JSON}; charset={long}")),
        ("content-encoding", long.clone()),
    ] {
        let mut headers = vec![("content-type", JSON), (name, value.as_str())];
        if name == "content-type" {
            headers.remove(0);
        }
        let (status, body) = post_bytes(&server, "/api/v1/logs", &headers, "{}").await;
        assert_eq!(status, 415);
        assert!(body.to_string().len() < 250, "{body}");
    }
}

#[tokio::test]
async fn oversized_event_is_refused_before_it_is_sent() {
    let server = server_with(&[("EYEGO_MAX_EVENT_BYTES", "100 KiB")]).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        100 * 1024 + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains("an event may have up to 102400 bytes"), "{response}");

    // Parsed on a blocking thread.
    let event = json!({"userId": "u", "action": "A", "metadata": {"x": "y".repeat(90_000)}});
    let (status, body) = post_as(&server, "/api/v1/logs", JSON, event.to_string()).await;
    assert_eq!(status, 202, "{body}");
    let response = reqwest::get(url(&server, "/health/ready")).await.unwrap();
    let ready: Value = response.json().await.unwrap();
    assert_eq!(ready["parts"]["worker"]["state"], "up", "{ready}");
}

#[tokio::test]
async fn body_of_a_request_that_takes_none_is_ignored() {
    let server = embedded_server().await;
    let event = json!({"userId": "u", "action": "A", "metadata": {"x": "y".repeat(200_000)}});
    for _ in 0..20 {
        assert_eq!(post_as(&server, "/api/v1/logs", JSON, event.to_string()).await.0, 202);
    }
    let path = "/api/v1/logs?limit=1000";
    logs(&server, "", 20).await;
    for _ in 0..5 {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 500000\r\n\r\n{}",
            "x".repeat(500_000)
        );
        let response =
            stack::hostile::exchange(server.address(), request.as_bytes()).await.unwrap();
        assert_eq!(response.status, 200);
        let page: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(page["results"], 20);
    }
}
