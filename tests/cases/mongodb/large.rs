//! Documents of other programs that are huge, or become huge as JSON: each route that could return
//! them has a bounded response and bounded memory.

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::spec::BinarySubtype;
use ::mongodb::bson::{Binary, Bson, DateTime};
use reqwest::StatusCode;
use serde_json::Value;
use stack::server::Server;

use super::*;
use crate::fixture::{Deployment, get, ready, url};

/// The limit of an event in a response.
const MAX_JSON: usize = 16 << 20;

const MIB: u64 = 1 << 20;

/// Memory above that of the idle server: the read budget of 128 MiB, and two large documents with their
/// JSON.
const MAX_GROWTH: u64 = 300 * MIB;

fn document(n: u8, user: &str, metadata: impl Into<Bson>) -> Document {
    doc! {
        "_id": ObjectId::from_bytes([n; 12]),
        "userId": user,
        "action": "A",
        "metadata": metadata,
        "timestamp": DateTime::from_millis(1_768_435_085_442 + i64::from(n)),
    }
}

fn id(n: u8) -> String {
    ObjectId::from_bytes([n; 12]).to_hex()
}

/// Documents below 16 MiB that are larger as JSON: 96 MB of escapes, 8 bytes of BSON that become 14 of
/// JSON, 18 MiB of Base64, and a user.
fn huge() -> [Document; 4] {
    let binary = Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 14 << 20] };
    [
        document(2, "u", doc! { "a": "\u{1}".repeat(16_000_000) }),
        document(3, "u", doc! { "a": vec![Bson::MaxKey; 1_700_000] }),
        document(4, "u", doc! { "a": binary }),
        document(5, &"\u{1}".repeat(15_000_000), doc! {}),
    ]
}

/// Returns the status and the size of a response.
async fn fetch(server: &Server, path: &str) -> (StatusCode, usize) {
    let response = reqwest::get(url(server, path)).await.unwrap();
    (response.status(), response.bytes().await.unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn event_that_is_too_large_as_json_is_never_returned() {
    let deployment = Deployment::shared().await;
    let server = ready(deployment.server("api")).await;
    let began = Instant::now();
    let idle = server.rss_bytes().unwrap();
    let mut tail = reqwest::get(url(&server, "/api/v1/logs/tail")).await.unwrap();
    let logs = deployment.collection("logs").await;
    logs.insert_one(document(1, "u", doc! { "first": true })).await.unwrap();
    for huge in huge() {
        logs.insert_one(huge).await.unwrap();
    }
    // The largest that can be returned.
    let large = "x".repeat(MAX_JSON - 2_000);
    logs.insert_one(document(6, "u", doc! { "a": large })).await.unwrap();
    logs.insert_one(document(7, "u", doc! { "last": true })).await.unwrap();

    for n in 2..=5 {
        let (status, body) = get(&server, &format!("/api/v1/logs/{}", id(n))).await;
        assert_eq!((status, &body["status"]), (413, &Value::from("fail")), "{n}: {body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("more than 16842752 bytes as JSON"), "{n}: {message}");
    }
    let (status, size) = fetch(&server, &format!("/api/v1/logs/{}", id(6))).await;
    assert_eq!(status, 200);
    assert!((MAX_JSON - 2_000..MAX_JSON + 100).contains(&size), "{size}");

    // Pages, exports and the tail leave them out.
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/logs?limit=1000{cursor}");
        let body = reqwest::get(url(&server, &path)).await.unwrap().bytes().await.unwrap();
        assert!(body.len() < MAX_JSON + 1_000, "{} bytes", body.len());
        let page: Value = serde_json::from_slice(&body).unwrap();
        let page_ids = page["data"].as_array().unwrap().iter();
        ids.extend(page_ids.map(|event| event["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(ids, [id(7), id(6), id(1)]);
    let export = reqwest::get(url(&server, "/api/v1/logs/export?order=asc")).await.unwrap();
    let export = export.text().await.unwrap();
    let exported: Vec<Value> =
        export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let exported: Vec<_> = exported.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(exported, [id(1), id(6), id(7)]);
    let mut received = String::new();
    while !received.contains(r#"{"last":true}}"#) {
        let piece = tokio::time::timeout(TIMEOUT, tail.chunk()).await.unwrap().unwrap();
        received += &String::from_utf8_lossy(&piece.expect("the tail goes on"));
        assert!(began.elapsed() < TIMEOUT * 3, "{} bytes", received.len());
    }
    let events = received.lines().filter(|line| line.starts_with("data: {\"id\""));
    assert_eq!(events.count(), 3);
    let (status, stats) = get(
        &server,
        "/api/v1/stats?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&by=metadata.last",
    )
    .await;
    assert_eq!((status, &stats["data"]["total"]), (200, &Value::from(3)), "{stats}");

    // Many readers at once.
    let paths = (2..=6).map(|n| format!("/api/v1/logs/{}", id(n)));
    let paths: Vec<_> = paths.chain(["/api/v1/logs?limit=1000".to_owned()]).collect();
    let server = Arc::new(server);
    let readers: Vec<_> = (0..24)
        .map(|n| {
            let (server, path) = (Arc::clone(&server), paths[n % paths.len()].clone());
            tokio::spawn(async move {
                for _ in 0..3 {
                    let (status, size) = fetch(&server, &path).await;
                    assert!([200, 413, 503].contains(&status.as_u16()), "{path}: {status}");
                    assert!(size < MAX_JSON + 1_000, "{path}: {size} bytes");
                }
            })
        })
        .collect();
    let mut peak = 0;
    for reader in readers {
        while !reader.is_finished() {
            peak = peak.max(server.rss_bytes().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        reader.await.unwrap();
    }
    let growth = peak.saturating_sub(idle) / MIB;
    assert!(growth * MIB < MAX_GROWTH, "{growth} MiB more than {} MiB", idle / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_with_huge_texts_is_shortened() {
    let deployment = Deployment::shared().await;
    let server = ready(deployment.server("api")).await;
    let collection = deployment.collection("dead-letters").await;
    for n in 1..=3 {
        let dead_letter = doc! {
            "_id": ObjectId::from_bytes([n; 12]),
            "raw": Binary { subtype: BinarySubtype::Generic, bytes: vec![0xff; 4 << 20] },
            "topic": "t",
            "partition": 0,
            "offset": 0_i64,
            "queuedAt": DateTime::from_millis(0),
            "code": "c",
            "message": "\u{1}".repeat(10_000_000),
            "attempts": 1,
            "failedAt": DateTime::from_millis(i64::from(n)),
        };
        collection.insert_one(dead_letter).await.unwrap();
    }
    let (status, size) = fetch(&server, "/api/v1/dead-letters").await;
    assert_eq!(status, 200);
    assert!(size < 2 << 20, "{size} bytes");
    let (status, size) = fetch(&server, &format!("/api/v1/dead-letters/{}", id(1))).await;
    assert_eq!(status, 200);
    assert!((5 << 20..7 << 20).contains(&size), "{size} bytes");
}
