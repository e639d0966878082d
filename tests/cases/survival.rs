//! Whatever happens to a server: each event that it acknowledged is in the store, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eyego_log_core::{LogId, LogIdGenerator, Timestamp};
use serde_json::json;
use stack::server::Server;

use crate::conformance::PATIENCE;
use crate::fixture::{Names, get};

/// Sends events until told to stop, each with an id of its own and again until it is
/// acknowledged; answers what was acknowledged.
async fn caller(
    base_url: String,
    caller: u64,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> HashMap<LogId, u64> {
    let client = reqwest::Client::new();
    let ids = LogIdGenerator::new();
    let mut mine = HashMap::new();
    for round in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let now = Timestamp::from(std::time::SystemTime::now());
        let batch: Vec<_> =
            (0..50).map(|n| (ids.generate(now), caller << 40 | round << 8 | n)).collect();
        let lines: Vec<_> = batch
            .iter()
            .map(|(id, n)| {
                let user = format!("user-{}", n % 97);
                json!({"id": id, "userId": user, "action": "A", "metadata": {"n": n}}).to_string()
            })
            .collect();
        loop {
            let answer = client
                .post(format!("{base_url}/api/v1/logs/batch"))
                .header("content-type", "application/x-ndjson")
                .body(lines.join("\n"))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status() == 202) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        acknowledged.fetch_add(batch.len() as u64, Ordering::Relaxed);
        mine.extend(batch);
    }
    mine
}

/// Kills the server five times while callers send, and then looks for each acknowledged event:
/// at least 20,000, or as many as `EYEGO_TEST_EVENTS` says.
async fn each_acknowledged_event_survives_kills(server: Server) {
    each_acknowledged_event_survives(&server, 5, async |_| {
        server.kill().unwrap();
        server.restart().await.unwrap();
    })
    .await;
}

/// Loads the server, and meanwhile calls `disturb` so many times; then each acknowledged event
/// must be in the store, once, and nothing else.
pub(crate) async fn each_acknowledged_event_survives(
    server: &Server,
    disturbances: u64,
    disturb: impl AsyncFn(u64),
) {
    let events = std::env::var("EYEGO_TEST_EVENTS").ok().map_or(20_000, |n| n.parse().unwrap());
    server.wait_ready(PATIENCE).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let (over, count) = (Arc::clone(&is_over), Arc::clone(&acknowledged));
            tokio::spawn(caller(server.base_url(), n, over, count))
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(300);
    let reach = async |count: u64| {
        while acknowledged.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "too slow\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for n in 1..=disturbances {
        reach(events * n / (disturbances + 1)).await;
        disturb(n).await;
    }
    reach(events).await;
    is_over.store(true, Ordering::Relaxed);
    let mut expected = HashMap::new();
    for caller in callers {
        expected.extend(caller.await.unwrap());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stored = all(server).await;
        let missing = expected.keys().filter(|id| !stored.contains_key(id)).count();
        if missing == 0 {
            for (id, n) in &stored {
                // Callers sent until each was acknowledged: nothing else may be there.
                assert_eq!(expected.get(id), Some(n), "{id}");
            }
            return;
        }
        assert!(Instant::now() < deadline, "{missing} of {} are lost", expected.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every log in the store, page by page; none twice.
async fn all(server: &Server) -> HashMap<LogId, u64> {
    let mut stored = HashMap::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = get(server, &format!("/api/v1/logs?limit=1000{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        for log in page["data"].as_array().unwrap() {
            let id = log["id"].as_str().unwrap().parse().unwrap();
            let doubled = stored.insert(id, log["metadata"]["n"].as_u64().unwrap());
            assert_eq!(doubled, None, "{id} is there twice");
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return stored,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_kills_embedded() {
    let server = Server::builder().start().await.unwrap();
    each_acknowledged_event_survives_kills(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_kills_on_kafka_and_mongodb() {
    let server = Names::new().await.server("all", "g").start().await.unwrap();
    each_acknowledged_event_survives_kills(server).await;
}
