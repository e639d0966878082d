//! Retention and erasure as callers and operators see them.

mod erasing;
mod killed;

use std::time::Duration;

use anyhow::ensure;
use eyego_log_core::Timestamp;
use serde_json::{Value, json};
use stack::eventually;
use stack::server::Server;

use crate::fixture::{
    Deployment, NDJSON, TIMEOUT, get, logs, post, post_bytes, post_log, ready, send, stored, url,
};
use crate::metrics::{Scrape, scrape_until};

fn days_ago(days: u64) -> String {
    let now = std::time::SystemTime::now();
    Timestamp::from(now - Duration::from_secs(days * 24 * 60 * 60)).to_string()
}

/// Requests the erasure of a user, whose id is given percent-encoded.
pub(crate) async fn erase(server: &Server, user: &str) -> Value {
    let path = format!("/api/v1/users/{user}/logs");
    let (status, body) = send(reqwest::Client::new().delete(url(server, &path))).await;
    assert_eq!((status, &body["status"]), (202, &json!("success")), "{body}");
    assert_eq!(body["data"]["state"], "running");
    body["data"].clone()
}

fn aged(action: &str, days: u64) -> Value {
    json!({"userId": "u", "action": action, "timestamp": days_ago(days)})
}

#[tokio::test]
async fn event_older_than_its_retention_is_invalid() {
    let server = Server::builder()
        .env("EYEGO_RETENTION", "30d")
        .env("EYEGO_RETENTION_BY_ACTION", "LOGIN=365d; CLICK = 90m");
    let server = ready(server).await;
    for (event, limit) in [
        (aged("VIEW", 31), "30 days"),
        (aged("LOGIN", 366), "365 days"),
        (aged("CLICK", 1), "90 minutes"),
    ] {
        let (status, body) = post_log(&server, &event).await;
        let message = body["errors"][0]["message"].as_str().unwrap_or_default();
        assert_eq!((status, &body["errors"][0]["path"]), (400, &json!("timestamp")), "{body}");
        assert!(message.contains(limit), "{body}");
    }
    for event in [aged("VIEW", 29), aged("LOGIN", 364), json!({"userId": "u", "action": "CLICK"})] {
        let (status, body) = post_log(&server, &event).await;
        assert_eq!(status, 202, "{body}");
        stored(&server, body["id"].as_str().unwrap()).await;
    }
    let batch = format!("{}\n{}", aged("VIEW", 1), aged("VIEW", 40));
    let (status, body) =
        post_bytes(&server, "/api/v1/logs/batch", &[("content-type", NDJSON)], batch).await;
    assert_eq!((status, &body["rejected"][0]["index"]), (207, &json!(1)), "{body}");
    assert_eq!(body["rejected"][0]["retryable"], false);
}

#[tokio::test]
async fn change_of_the_retention_applies_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = ready(Server::builder().data_dir(dir.path())).await;
    for days in [400, 40, 4] {
        assert_eq!(post_log(&server, &aged("VIEW", days)).await.0, 202);
        assert_eq!(post_log(&server, &aged("LOGIN", days)).await.0, 202);
    }
    logs(&server, "", 6).await;
    server.terminate().await.unwrap();
    drop(server);
    let server = Server::builder()
        .data_dir(dir.path())
        .env("EYEGO_RETENTION", "30d")
        .env("EYEGO_RETENTION_BY_ACTION", "LOGIN=365d");
    let server = ready(server).await;
    eventually("three events to be left", TIMEOUT, async || {
        let (_, page) = get(&server, "/api/v1/logs?limit=100").await;
        ensure!(page["results"] == 3, "{page}");
        Ok(())
    })
    .await
    .unwrap();
    let kept = logs(&server, "order=asc", 3).await;
    let actions: Vec<_> = kept.iter().map(|log| log["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["LOGIN", "VIEW", "LOGIN"]);
    let is_counted = |scrape: &Scrape| {
        scrape.get("eyego_removal_deleted_total{reason=\"expired\"}") == 3.0
            && scrape.sum("eyego_store_oldest_event_timestamp_seconds") > 0.0
    };
    let scrape = scrape_until(&server, "the deletions to be counted", is_counted).await;
    assert_eq!(scrape.get("eyego_removal_errors_total"), 0.0);
}

#[tokio::test]
async fn erasures_are_listed_and_shown() {
    let server = ready(Server::builder()).await;
    let first = erase(&server, "a%2Fb%20%C3%BC%25").await;
    assert_eq!(first["userId"], "a/b ü%");
    let second = erase(&server, "nobody").await;
    let (status, body) = get(&server, "/api/v1/erasures?limit=1").await;
    assert_eq!((status, &body["results"], &body["data"][0]["id"]), (200, &json!(1), &second["id"]));
    let cursor = body["nextCursor"].as_str().unwrap();
    let (_, body) = get(&server, &format!("/api/v1/erasures?limit=1&cursor={cursor}")).await;
    assert_eq!(body["data"], json!([first]));
    assert_eq!(body["nextCursor"], Value::Null);
    let path = format!("/api/v1/erasures/{}", first["id"].as_str().unwrap());
    let (status, body) = get(&server, &path).await;
    assert_eq!((status, &body["data"]), (200, &first));
    assert_eq!(first["removed"], json!({"store": 0, "deadLetters": 0}));
    assert_eq!(first["completedAt"], Value::Null);

    for (path, status) in [
        ("/api/v1/erasures/000000000000000000000000", 404),
        ("/api/v1/erasures/x", 400),
        ("/api/v1/erasures?limit=0", 400),
        ("/api/v1/erasures?userId=u", 400),
    ] {
        assert_eq!(get(&server, path).await.0, status, "{path}");
    }
    let request = |path: &str| reqwest::Client::new().delete(url(&server, path));
    let (status, body) = send(request("/api/v1/users/%FF/logs")).await;
    assert_eq!((status, &body["errors"][0]["path"]), (400, &json!("userId")), "{body}");
    assert_eq!(send(request("/api/v1/users/u/logs?x=1")).await.0, 400);
    assert_eq!(get(&server, "/api/v1/users/u/logs").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_topic_brings_back_nothing_expired_or_erased() {
    let deployment = Deployment::shared().await;
    let configured = |role: &str, group: &str| {
        deployment.server_in_group(role, group).env("EYEGO_RETENTION_BY_ACTION", "OLD=30d")
    };
    let server = ready(configured("all", "g")).await;
    // Like records of the legacy service, these have no id and no time of receipt.
    for (user, action, days) in [("ada", "A", 40), ("bob", "A", 40), ("bob", "OLD", 40)] {
        let record = json!({
            "id": null, "userId": user, "action": action, "timestamp": days_ago(days), "metadata": {},
        });
        deployment.produce(user, record.to_string().as_bytes()).await;
    }
    // No store can hold this record, but its user can be read.
    let poison = br#"{"userId":"ada","action":"A","metadata":{"huge":1e999}}"#;
    deployment.produce("ada", poison).await;
    for n in 0..20 {
        let user = if n % 2 == 0 { "ada" } else { "bob" };
        let event = json!({"userId": user, "action": "A", "metadata": {"n": n}});
        assert_eq!(post_log(&server, &event).await.0, 202);
    }
    logs(&server, "userId=ada", 11).await;
    logs(&server, "userId=bob", 11).await;
    let is_skipped = |scrape: &Scrape| {
        scrape.check_worker();
        scrape.get("eyego_worker_skipped_total{reason=\"expired\"}") == 1.0
            && scrape.sum("eyego_worker_dead_letters_total") == 1.0
    };
    scrape_until(&server, "the expired record to be skipped", is_skipped).await;
    let (_, body) = get(&server, "/api/v1/dead-letters").await;
    assert_eq!(body["data"][0]["userId"], "ada", "{body}");

    let erasure = erase(&server, "ada").await;
    let (status, later) = post_log(&server, &json!({"userId": "ada", "action": "LATER"})).await;
    assert_eq!(status, 202);
    let path = format!("/api/v1/erasures/{}", erasure["id"].as_str().unwrap());
    eventually("the first pass", TIMEOUT, async || {
        let (_, body) = get(&server, &path).await;
        ensure!(body["data"]["removed"] == json!({"store": 11, "deadLetters": 1}), "{body}");
        Ok(())
    })
    .await
    .unwrap();
    let kept = logs(&server, "userId=ada", 1).await;
    assert_eq!(kept[0]["id"], later["id"]);

    // Another group starts at offset 0.
    let replay = configured("worker", "replay").start().await.unwrap();
    let is_replayed = |scrape: &Scrape| {
        scrape.check_worker();
        scrape.get("eyego_worker_consumed_total") == 25.0
            && scrape.partitions() == 6
            && scrape.is_drained()
    };
    let scrape = scrape_until(&replay, "the topic to be replayed", is_replayed).await;
    for (series, count) in [
        ("skipped_total{reason=\"erased\"}", 12.0),
        ("skipped_total{reason=\"expired\"}", 1.0),
        ("duplicates_total", 12.0),
        ("stored_total", 0.0),
    ] {
        assert_eq!(scrape.get(&format!("eyego_worker_{series}")), count, "{series}");
    }
    logs(&server, "userId=ada", 1).await;
    logs(&server, "userId=bob", 11).await;
    let (_, body) = get(&server, "/api/v1/dead-letters").await;
    assert_eq!(body["results"], 0, "{body}");
    let (status, body) = post(&server, "/api/v1/dead-letters/replay", &json!({"all": true})).await;
    assert_eq!((status, &body["replayed"]), (200, &json!(0)), "{body}");
}
