//! Reads of a running server: pages bounded by bytes, the memory of slow readers, and deadlines.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stack::server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::{TIMEOUT, embedded_server, get, post, post_log, ready, stored};
use crate::metrics::{Scrape, scrape_until};

const EVENT_BYTES: usize = 240_000;

/// Stores this many events of 240 KB.
async fn store_large(server: &Server, count: usize) {
    let text = "x".repeat(EVENT_BYTES);
    for n in 0..count {
        let event = json!({"userId": format!("u{n}"), "action": "A", "metadata": {"text": text}});
        loop {
            let (status, body) = post_log(server, &event).await;
            if status == 202 {
                break;
            }
            // The embedded queue refuses what it could not store soon.
            assert_eq!(status, 503, "{body}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let are_stored = |scrape: &Scrape| scrape.get("eyego_worker_stored_total") == count as f64;
    scrape_until(server, "the events to be stored", are_stored).await;
}

/// Sends a request and reads the first bytes of the response only.
async fn request_without_reading(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pages_are_bounded_whoever_reads_them() {
    const COUNT: usize = 300;
    /// The read budget, and what 8 queries at the same time may hold beside it.
    const MAX_GROWTH: u64 = (128 + 64) << 20;

    let server = embedded_server().await;
    store_large(&server, COUNT).await;
    let before = server.rss_bytes().unwrap();
    let path = "/api/v1/logs?limit=1000&order=asc";
    let mut slow = Vec::new();
    for _ in 0..32 {
        slow.push(request_without_reading(&server, path).await);
    }
    let mut peak = 0;
    let (mut found, mut cursor) = (0, String::new());
    let mut refused = 0;
    while found < COUNT {
        let (status, page) = get(&server, &format!("{path}{cursor}")).await;
        peak = peak.max(server.rss_bytes().unwrap());
        if status == 503 {
            refused += 1;
            // Slow readers hold the memory for large pages. Small ones are still served.
            for path in ["/api/v1/logs?limit=1", "/health/ready"] {
                assert_eq!(get(&server, path).await.0, 200, "{path}");
            }
            slow.pop().expect("the budget is in use by the slow readers");
            continue;
        }
        assert_eq!(status, 200, "{page}");
        let results = page["data"].as_array().unwrap();
        assert!(results.len() <= (8 << 20) / EVENT_BYTES, "{}", results.len());
        found += results.len();
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, COUNT);
    assert!(refused > 0, "32 slow readers did not use the budget up");
    let growth = peak.saturating_sub(before);
    println!("{refused} refused, {} MiB more", growth >> 20);
    assert!(growth < MAX_GROWTH, "{} MiB", growth >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_of_reads_is_503_with_retry_after() {
    let server = embedded_server().await;
    store_large(&server, 40).await;
    let mut slow = Vec::new();
    let response = loop {
        let response = reqwest::get(format!("{}/api/v1/logs?limit=1000", server.base_url()));
        let response = response.await.unwrap();
        if response.status() == 503 {
            break response;
        }
        drop(response);
        slow.push(request_without_reading(&server, "/api/v1/logs?limit=1000").await);
        assert!(slow.len() < 100, "the budget is never used up");
    };
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], "error");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("the memory for reads is in use"), "{message}");
    drop(slow);
    let freed = stack::eventually("the memory to be released", TIMEOUT, async || {
        let (status, _) = get(&server, "/api/v1/logs?limit=1000").await;
        anyhow::ensure!(status == 200);
        Ok(())
    });
    freed.await.unwrap();
}

/// A query that matches nothing and takes long for each event.
fn expensive_query() -> String {
    let filters: Vec<_> = (0..16).map(|n| format!("metadata.a.b={n}x")).collect();
    // Repeated names are errors, so each path differs.
    let filters: Vec<_> =
        filters.iter().enumerate().map(|(n, f)| f.replace("a.b", &format!("a.b.c{n}"))).collect();
    format!("/api/v1/logs?{}", filters.join("&"))
}

#[tokio::test(flavor = "multi_thread")]
async fn cheap_reads_are_quick_while_expensive_ones_run_to_their_deadline() {
    let server = ready(Server::builder()).await;
    // 25,000 members in each array. Matching one event takes milliseconds.
    let members: Vec<_> = (0..25_000).map(|n| json!({"b": n % 10})).collect();
    let event = json!({"userId": "u", "action": "A", "metadata": {"a": members}});
    let events: Vec<_> = (0..40).map(|_| event.clone()).collect();
    let mut id = String::new();
    for _ in 0..10 {
        for chunk in events.chunks(20) {
            let (status, body) = post(&server, "/api/v1/logs/batch", &json!(chunk)).await;
            if status == 202 {
                id = body["ids"][0].as_str().unwrap().to_owned();
            }
        }
    }
    stored(&server, &id).await;
    let scans: Vec<_> = (0..12)
        .map(|_| {
            let url = format!("{}{}", server.base_url(), expensive_query());
            tokio::spawn(async move {
                let began = Instant::now();
                let response = reqwest::get(url).await.unwrap();
                let status = response.status().as_u16();
                (status, response.json::<Value>().await.unwrap(), began.elapsed())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut times = Vec::new();
    while !scans.iter().all(tokio::task::JoinHandle::is_finished) {
        for path in [format!("/api/v1/logs/{id}"), "/api/v1/logs?userId=u&limit=1".to_owned()] {
            let began = Instant::now();
            assert_eq!(get(&server, &path).await.0, 200, "{path}");
            times.push(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort_unstable();
    println!("{} reads, p50 {:?}", times.len(), times[times.len() / 2]);
    let mut statuses = Vec::new();
    for scan in scans {
        let (status, body, took) = scan.await.unwrap();
        assert!(took < Duration::from_secs(13), "{took:?} {body}");
        assert!(status == 200 || status == 503, "{status} {body}");
        statuses.push((status, body["message"].clone()));
    }
    println!("{statuses:?}");
    assert!(statuses.iter().any(|(status, _)| *status == 503), "{statuses:?}");
    // No cheap read has waited for a scan.
    assert!(times[times.len() - 1] < Duration::from_secs(3), "{:?}", times[times.len() - 1]);
}
