//! Who may use which route.

use futures_util::StreamExt as _;
use serde_json::json;
use stack::keys::KeysFile;

use super::{
    EVENT, SCOPES, client, get_as, post_as, post_event, raw, refused_start, send,
    server_with_token, with_keys,
};
use crate::fixture::{JSON, NDJSON, logged, ready, url};

#[tokio::test]
async fn each_scope_allows_only_its_routes() {
    let keys = KeysFile::new().unwrap();
    let tokens: Vec<_> = SCOPES.map(|scope| keys.add(scope, &[scope]).unwrap()).into();
    let server = ready(with_keys(&keys)).await;
    let id = "69682d8d81847b87ab93264b";
    let routes = [
        ("POST", "/api/v1/logs".to_owned(), "ingest", 202),
        ("POST", "/api/v1/logs/batch".to_owned(), "ingest", 202),
        ("GET", "/api/v1/logs".to_owned(), "read", 200),
        ("HEAD", "/api/v1/logs".to_owned(), "read", 200),
        ("GET", format!("/api/v1/logs/{id}"), "read", 404),
        ("GET", "/api/v1/logs/export".to_owned(), "read", 200),
        (
            "GET",
            "/api/v1/stats?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z".to_owned(),
            "read",
            200,
        ),
        ("DELETE", "/api/v1/users/nobody/logs".to_owned(), "erase", 202),
        ("GET", "/api/v1/erasures".to_owned(), "erase", 200),
        ("GET", format!("/api/v1/erasures/{id}"), "erase", 404),
        ("GET", "/api/v1/dead-letters".to_owned(), "admin", 200),
        ("GET", format!("/api/v1/dead-letters/{id}"), "admin", 404),
        ("POST", "/api/v1/dead-letters/replay".to_owned(), "admin", 200),
        ("GET", "/metrics".to_owned(), "metrics", 200),
    ];
    for (method, path, scope, expected) in routes {
        for (other, token) in SCOPES.iter().zip(&tokens) {
            let method = method.parse().unwrap();
            let request = client(token).request(method, url(&server, &path));
            let body = match path.as_str() {
                "/api/v1/dead-letters/replay" => json!({"all": true}).to_string(),
                "/api/v1/logs/batch" => format!("[{EVENT}]"),
                _ => EVENT.to_owned(),
            };
            let response = send(request.header("content-type", JSON).body(body)).await;
            if *other == scope {
                assert_eq!(response.status, expected, "{path} as {other}: {}", response.body);
            } else {
                assert_eq!(response.status, 403, "{path} as {other}: {}", response.body);
                let names_scope = response.message().ends_with(&format!("the scope `{scope}`"));
                assert!(names_scope || response.body == "", "{}", response.body);
            }
        }
    }
    // What does not exist requires a key as well, and is then 404 or 405.
    for (path, status) in [("/nothing", 404), ("/api/v1/logs/batch", 403)] {
        assert_eq!(send(reqwest::Client::new().get(url(&server, path))).await.status, 401);
        assert_eq!(get_as(&server, &tokens[0], path).await.status, status, "{path}");
    }
    let put = client(&tokens[0]).put(url(&server, "/api/v1/logs"));
    assert_eq!(send(put).await.status, 405);
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(send(reqwest::Client::new().get(url(&server, path))).await.status, 200);
    }
}

#[tokio::test]
async fn a_request_without_a_valid_token_is_401() {
    let (server, keys, token) = server_with_token().await;
    let revoked = KeysFile::new().unwrap().add("all", &SCOPES).unwrap();
    let expired = keys.add_with("old", &SCOPES, "expires = \"2020-01-01T00:00:00Z\"").unwrap();
    server.restart().await.unwrap();
    for (authorization, reason) in [
        (None, "a token is required"),
        (Some(format!("Bearer {revoked}")), "unknown"),
        (Some(format!("Bearer {expired}")), "expired"),
        (Some("Bearer secret".to_owned()), "malformed"),
        (Some(format!("Basic {token}")), "malformed"),
        (Some(token.clone()), "malformed"),
    ] {
        let mut request = reqwest::Client::new().get(url(&server, "/api/v1/logs"));
        if let Some(authorization) = &authorization {
            request = request.header("authorization", authorization);
        }
        let response = send(request).await;
        assert_eq!(response.status, 401, "{authorization:?}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        assert_eq!(response.body["status"], "fail");
        assert!(response.message().contains(reason), "{authorization:?}: {}", response.body);
    }
    assert_eq!(post_event(&server, &token).await.status, 202);
}

#[tokio::test]
async fn a_token_in_the_query_string_is_refused_and_not_logged() {
    let (server, _keys, token) = server_with_token().await;
    for path in [format!("/api/v1/logs?access_token={token}"), format!("/api/v1/logs?key={token}")]
    {
        for response in [
            send(reqwest::Client::new().get(url(&server, &path))).await,
            get_as(&server, &token, &path).await,
        ] {
            assert_eq!(response.status, 401);
            assert!(response.message().contains("may now be in logs"), "{}", response.body);
        }
    }
    let log = logged(&server, "token_in_query").await;
    assert!(!log.contains(&token), "{log}");
}

#[tokio::test]
async fn requests_are_refused_before_their_body_is_asked_for() {
    let (server, _keys, token) = server_with_token().await;
    let head = |rest: &str| {
        format!(
            "POST /api/v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n\
             content-length: 1000000\r\nexpect: 100-continue\r\n{rest}\r\n"
        )
    };
    let authorized = format!("authorization: Bearer {token}\r\n");
    for (request, status) in [
        (head(""), "401"),
        (head("authorization: Bearer x\r\n"), "401"),
        (head(&format!("{authorized}origin: https://evil.example\r\n")), "403"),
        (head(&authorized).replace(JSON, "text/plain"), "415"),
        (head(&format!("{authorized}content-encoding: br\r\n")), "415"),
        (head(&authorized).replace("/logs ", "/dead-letters/replay ").replace(JSON, NDJSON), "415"),
        (head(&authorized), "413"),
        (head(&authorized).replace("/logs ", "/nothing "), "404"),
        (head(&authorized).replace("POST", "PUT"), "405"),
    ] {
        let response = raw(&server, &request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{response}");
        assert!(response.contains("\"status\":\"fail\""), "{response}");
    }
    let response = raw(&server, &head(&authorized).replace("1000000", "27")).await;
    assert!(response.starts_with("HTTP/1.1 100 Continue"), "{response}");
}

#[tokio::test]
async fn wrong_tokens_neither_fill_the_log_nor_block_a_valid_one() {
    const WRONG: u64 = 5_000;
    let (server, _keys, token) = server_with_token().await;
    let wrong = format!("{}{}", &token[..token.len() - 4], "AAAA");
    let flood = client(&wrong);
    let path = url(&server, "/api/v1/logs");
    let flooding = async {
        let attempts = (0..WRONG).map(|_| flood.get(&path).send());
        let sent = futures_util::stream::iter(attempts).buffer_unordered(64);
        let statuses = sent.map(|sent| sent.unwrap().status().as_u16());
        let statuses: Vec<_> = statuses.collect().await;
        statuses.into_iter().filter(|status| *status == 401).count() as u64
    };
    let (refused, response) = tokio::join!(flooding, post_event(&server, &token));
    assert_eq!((refused, response.status), (WRONG, 202));
    let lines = server.log().lines().count();
    assert!(lines < 500, "{lines} lines for {WRONG} wrong tokens");
    let metrics = get_as(&server, &token, "/metrics").await;
    let metrics = metrics.body.as_str().unwrap().to_owned();
    let counted = format!("eyego_access_refused_total{{reason=\"unauthenticated\"}} {WRONG}");
    assert!(metrics.contains(&counted), "{metrics}");
    assert!(metrics.contains("eyego_key_requests_total{key=\"all\"} 2"), "{metrics}");
    assert!(!metrics.contains(&token) && !server.log().contains(&token));
}

#[tokio::test]
async fn an_error_in_the_keys_file_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let builder = || stack::server::Server::builder().env("EYEGO_KEYS_FILE", &path);
    std::fs::write(&path, "[[key]]\nid = \"web\"\nhash = \"sha256:5e88\"\nscopes = [\"ingest\"]\n")
        .unwrap();
    let log = refused_start(builder()).await;
    let expected =
        format!("EYEGO_KEYS_FILE: {}: line 3: key `web`: hash: expected", path.display());
    assert!(log.contains(&expected), "{log}");
    std::fs::remove_file(&path).unwrap();
    let log = refused_start(builder()).await;
    assert!(log.contains("cannot read") && log.contains("EYEGO_KEYS_FILE"), "{log}");
}

#[tokio::test]
async fn a_batch_needs_the_scope_too() {
    let keys = KeysFile::new().unwrap();
    let token = keys.add("reader", &["read"]).unwrap();
    let server = ready(with_keys(&keys)).await;
    let response = post_as(&server, &token, "/api/v1/logs/batch", NDJSON, EVENT.to_owned()).await;
    assert_eq!(response.status, 403, "{}", response.body);
}
