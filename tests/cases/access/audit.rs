//! The audit log.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use stack::eventually;
use stack::server::Server;

use super::{audit_lines, client, get_as, post_as, post_event, send, server_with_token};
use crate::fixture::{JSON, TIMEOUT, url};

/// Waits until the audit log has a line like this, and returns it.
async fn line(server: &Server, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, TIMEOUT, async || {
        let lines = audit_lines(server);
        let found = lines.iter().find(|line| holds(line)).cloned();
        found.ok_or_else(|| anyhow::anyhow!("{lines:#?}"))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn reads_replays_and_refusals_are_audited() {
    let (server, _keys, token) = server_with_token().await;
    for _ in 0..3 {
        post_event(&server, &token).await;
    }
    let query = "/api/v1/logs?userId=u&limit=5";
    eventually("three events", TIMEOUT, async || {
        let response = get_as(&server, &token, query).await;
        ensure!(response.body["results"] == 3, "{}", response.body);
        Ok(())
    })
    .await
    .unwrap();
    let request = client(&token).get(url(&server, query)).header("x-request-id", "read-1");
    let id = send(request).await.body["data"][0]["id"].as_str().unwrap().to_owned();
    let found = line(&server, "the read", |line| line["request_id"] == "read-1").await;
    for (field, value) in [
        ("key", json!("all")),
        ("address", json!("127.0.0.1")),
        ("method", json!("GET")),
        ("route", json!("/api/v1/logs")),
        ("filter", json!("userId=u&limit=5")),
        ("count", json!(3)),
        ("status", json!(200)),
        ("level", json!("INFO")),
    ] {
        assert_eq!(found[field], value, "{field} in {found}");
    }
    get_as(&server, &token, &format!("/api/v1/logs/{id}")).await;
    let route = format!("/api/v1/logs/{id}");
    assert_eq!(line(&server, "one event", |line| line["route"] == *route).await["count"], 1);
    get_as(&server, &token, "/api/v1/dead-letters?code=x").await;
    let found = line(&server, "dead letters", |line| line["route"] == "/api/v1/dead-letters").await;
    assert_eq!((&found["filter"], &found["count"]), (&json!("code=x"), &json!(0)));
    let request = client(&token).get(url(&server, "/api/v1/logs/export?userId=u"));
    assert_eq!(request.send().await.unwrap().text().await.unwrap().lines().count(), 3);
    let found = line(&server, "export", |line| line["route"] == "/api/v1/logs/export").await;
    assert_eq!((&found["count"], &found["complete"]), (&json!(3), &json!(true)), "{found}");
    assert_eq!((&found["key"], &found["filter"]), (&json!("all"), &json!("userId=u")));
    let body = json!({"code": "y"}).to_string();
    post_as(&server, &token, "/api/v1/dead-letters/replay", JSON, body).await;
    let found = line(&server, "the replay", |line| line["filter"] == "code=y").await;
    assert_eq!((&found["method"], &found["count"]), (&json!("POST"), &json!(0)));

    send(reqwest::Client::new().get(url(&server, query))).await;
    let found = line(&server, "a refusal", |line| line["reason"] == "unauthenticated").await;
    assert_eq!((&found["status"], &found["level"]), (&json!(401), &json!("WARN")));
    assert_eq!((found.get("key"), found.get("filter")), (None, None), "{found}");
    // Posting events is not audited, and no token is ever logged.
    assert!(
        audit_lines(&server)
            .iter()
            .all(|line| line["method"] != "POST" || line["filter"] == "code=y")
    );
    assert!(!server.log().contains(&token));
}

#[tokio::test]
async fn suppressed_lines_are_counted_and_a_log_level_does_not_turn_the_audit_log_off() {
    let server = Server::builder().env("EYEGO_LOG", "error").start().await.unwrap();
    for _ in 0..100 {
        let request = reqwest::Client::new().post(url(&server, "/api/v1/logs"));
        assert_eq!(send(request.header("origin", "https://evil.example")).await.status, 403);
    }
    let listed = || audit_lines(&server).iter().filter(|line| line["reason"] == "origin").count();
    let suppressed = || -> u64 {
        let lines = audit_lines(&server);
        lines
            .iter()
            .filter(|line| line.get("reason").is_none())
            .filter_map(|line| line["count"].as_u64())
            .sum()
    };
    eventually("all refusals to be listed or counted", Duration::from_secs(20), async || {
        let (listed, suppressed) = (listed(), suppressed());
        ensure!(listed as u64 + suppressed == 100, "{listed} {suppressed}");
        ensure!(suppressed > 0, "{listed} lines");
        Ok(())
    })
    .await
    .unwrap();

    let server = Server::builder().env("EYEGO_LOG", "info,audit=off").start().await.unwrap();
    send(reqwest::Client::new().get(url(&server, "/api/v1/logs"))).await;
    assert_eq!(audit_lines(&server), Vec::<Value>::new());
}
