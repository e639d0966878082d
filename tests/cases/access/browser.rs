//! Pages in browsers: rebound names, forms and scripts of other sites.

use serde_json::Value;
use stack::server::Server;

use super::{EVENT, raw, send, server_with_token};
use crate::fixture::{JSON, embedded_server, get, ready, url};

fn host(name: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_rebound_name_is_421_on_a_loopback_address_without_keys() {
    let server = embedded_server().await;
    for path in ["/api/v1/logs", "/metrics", "/health/live", "/nothing"] {
        let response = raw(&server, &host("evil.example", path)).await;
        assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], "fail");
        assert!(body["message"].as_str().unwrap().contains("EYEGO_HOSTS"), "{body}");
    }
    for name in ["localhost", "127.0.0.1:1", "[::1]:3000", "10.0.0.7"] {
        let response = raw(&server, &host(name, "/health/live")).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{name}: {response}");
    }
    let (_, metrics) = text(&server, "/metrics").await;
    assert!(metrics.contains("eyego_access_refused_total{reason=\"host\"} 4"), "{metrics}");
}

async fn text(server: &Server, path: &str) -> (u16, String) {
    let response = reqwest::get(url(server, path)).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn listed_names_are_enforced_also_with_keys() {
    let (open, _keys, _) = server_with_token().await;
    let response = raw(&open, &host("any.example", "/health/live")).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");

    let server = ready(Server::builder().env("EYEGO_HOSTS", "logs.example, api.example")).await;
    for (name, status) in [("logs.example", 200), ("API.example:80", 200), ("any.example", 421)] {
        let response = raw(&server, &host(name, "/health/live")).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {response}");
    }
}

#[tokio::test]
async fn a_cross_site_form_changes_nothing() {
    let server = embedded_server().await;
    for media in ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"] {
        let post = |path: &str, origin: Option<&str>| {
            let request = reqwest::Client::new().post(url(&server, path));
            let request = request.header("content-type", media).body(EVENT);
            origin
                .map(|origin| request.try_clone().unwrap().header("origin", origin))
                .unwrap_or(request)
        };
        for path in ["/api/v1/logs", "/api/v1/logs/batch", "/api/v1/dead-letters/replay"] {
            assert_eq!(send(post(path, None)).await.status, 415, "{path} {media}");
            let response = send(post(path, Some("https://evil.example"))).await;
            assert_eq!(response.status, 403, "{path} {media}");
            assert!(response.message().contains("EYEGO_CORS_ORIGINS"), "{}", response.body);
        }
    }
    // Even with a media type that a form cannot send.
    let request = reqwest::Client::new().post(url(&server, "/api/v1/logs"));
    let request = request.header("origin", "null").header("content-type", JSON).body(EVENT);
    assert_eq!(send(request).await.status, 403);
    let (_, page) = get(&server, "/api/v1/logs").await;
    assert_eq!(page["results"], 0);
}

#[tokio::test]
async fn only_listed_origins_get_cors_headers() {
    const APP: &str = "https://app.example";
    let server = ready(Server::builder().env("EYEGO_CORS_ORIGINS", APP)).await;
    let logs = url(&server, "/api/v1/logs");
    let client = reqwest::Client::new();
    let preflight = |origin: &str| {
        client
            .request("OPTIONS".parse().unwrap(), &logs)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type")
    };
    let response = send(preflight(APP)).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert!(response.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(response.header("access-control-allow-headers").unwrap().contains("authorization"));
    let response = send(preflight("https://evil.example")).await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (403, None));

    let posted =
        send(client.post(&logs).header("origin", APP).header("content-type", JSON).body(EVENT))
            .await;
    assert_eq!(posted.status, 202, "{}", posted.body);
    assert_eq!(posted.header("access-control-allow-origin"), Some(APP));
    assert_eq!(posted.header("vary"), Some("origin"));
    let invalid = send(client.get(format!("{logs}?x=1")).header("origin", APP)).await;
    assert_eq!((invalid.status, invalid.header("access-control-allow-origin")), (400, Some(APP)));
    for origin in ["https://evil.example", "http://app.example"] {
        let response = send(client.get(&logs).header("origin", origin)).await;
        assert_eq!((response.status, response.header("access-control-allow-origin")), (200, None));
    }

    // Without the option, no origin is listed.
    let server = embedded_server().await;
    let request = client.get(url(&server, "/api/v1/logs")).header("origin", APP);
    assert_eq!(send(request).await.header("access-control-allow-origin"), None);
}
