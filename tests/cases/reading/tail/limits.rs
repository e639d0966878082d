//! Many tails, and clients that do not read.

use serde_json::json;
use stack::keys::KeysFile;
use stack::server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::messages::Messages;
use super::{TAIL, event, post_action, store_all};
use crate::fixture::{TIMEOUT, embedded_server, get, logged, ready, url};
use crate::metrics::{Scrape, scrape_until};

const MAX_TAILS: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tails_fit_in_64_mib_and_one_more_gets_503() {
    let server = ready(Server::builder().env("EYEGO_MAX_CONNECTIONS", "1100")).await;
    post_action(&server, "u", "WARM_UP").await;
    drop(Messages::open(&server, "last=1").await);
    let before = server.rss_bytes().unwrap();
    let mut tails = Vec::with_capacity(MAX_TAILS);
    for n in 0..MAX_TAILS {
        let query = ["", "userId=ada", "metadata.page=home"][n % 3];
        let mut tail = Messages::open(&server, query).await;
        tail.position().await;
        tails.push(tail);
    }
    let response = reqwest::get(url(&server, TAIL)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    let text = response.text().await.unwrap();
    assert!(text.contains("the limit of 1000 tails is reached"), "{text}");
    let events: Vec<_> = (0..50).map(|n| event(n, "ada", "A", 1_767_225_600_000)).collect();
    store_all(&server, &events).await;
    for tail in &mut tails {
        for _ in 0..50 {
            tail.next_event().await;
        }
    }
    let grown = server.rss_bytes().unwrap().saturating_sub(before);
    println!("1,000 tails: {} KiB", grown >> 10);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    drop(tails);
    scrape_until(&server, "the tails to close", |scrape| scrape.get("eyego_tails") == 0.0).await;
    drop(Messages::open(&server, "").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_that_do_not_read_large_events_share_their_memory() {
    const TAILS: u32 = 300;

    let server = ready(Server::builder().env("EYEGO_MAX_EVENT_BYTES", "3 MiB")).await;
    let large = json!([{"userId": "u", "action": "A", "metadata": {"text": "x".repeat(2 << 20)}}]);
    store_all(&server, large.as_array().unwrap()).await;
    let before = server.rss_bytes().unwrap();
    let mut tails = Vec::new();
    for _ in 0..TAILS {
        let mut tail = TcpStream::connect(server.address()).await.unwrap();
        let request = format!("GET {TAIL} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        tail.write_all(request.as_bytes()).await.unwrap();
        tails.push(tail);
    }
    let is_open = |scrape: &Scrape| scrape.get("eyego_tails") == f64::from(TAILS);
    scrape_until(&server, "the tails", is_open).await;
    for _ in 0..8 {
        store_all(&server, large.as_array().unwrap()).await;
    }
    let have_read =
        |scrape: &Scrape| scrape.get("eyego_tail_events_sent_total") >= f64::from(TAILS);
    scrape_until(&server, "each tail to have an event", have_read).await;
    let grown = server.rss_bytes().unwrap().saturating_sub(before);
    // The events for all tails, their large pieces, and what was received: not 2 MiB per tail.
    assert!(grown < 200 << 20, "{} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_client_gets_skipped_and_never_silence() {
    const COUNT: usize = 1_200;

    let server = embedded_server().await;
    let mut slow = TcpStream::connect(server.address()).await.unwrap();
    let request =
        format!("GET {TAIL}?userId=u HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    scrape_until(&server, "the tail", |scrape| scrape.get("eyego_tails") == 1.0).await;
    // More than the feed and the buffers of the connection take.
    let text = "x".repeat(60_000);
    for first in (0..COUNT).step_by(100) {
        let events: Vec<_> = (first..first + 100)
            .map(|n| {
                let user = ["other", "u"][n % 2];
                json!({"userId": user, "action": "A", "metadata": {"n": n, "text": text}})
            })
            .collect();
        store_all(&server, &events).await;
    }
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    let last = format!("\"n\":{},", COUNT - 1);
    let ends = |received: &[u8]| {
        let tail = &received[received.len().saturating_sub(80_000)..];
        String::from_utf8_lossy(tail).contains(&last)
    };
    while !ends(&received) {
        let read = tokio::time::timeout(TIMEOUT, slow.read(&mut buffer)).await;
        let read = read.expect("no data").unwrap();
        assert!(read > 0, "the tail ended");
        received.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&received);
    let events = text.matches("event: log\n").count() as u64;
    let counts = text.split("event: skipped\ndata: {\"count\":").skip(1);
    let skipped: u64 =
        counts.map(|rest| rest.split('}').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!(skipped > 0, "{events} events");
    assert_eq!(events + skipped, COUNT as u64 / 2, "the events of others do not count");
    let is_counted = |scrape: &Scrape| {
        scrape.get("eyego_tail_events_skipped_total") == skipped as f64
            && scrape.get("eyego_tail_events_sent_total") == events as f64
    };
    scrape_until(&server, "the metrics", is_counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_ends_when_its_key_is_removed_and_counts_as_a_request_of_the_key() {
    let keys = KeysFile::new().unwrap();
    let writer = keys.add("writer", &["ingest"]).unwrap();
    let reader = keys.add("reader", &["read"]).unwrap();
    let server = ready(Server::builder().env("EYEGO_KEYS_FILE", keys.path())).await;
    let client = reqwest::Client::new();
    let request = |token: &str| client.get(url(&server, TAIL)).bearer_auth(token);
    assert_eq!(request(&writer).send().await.unwrap().status(), 403);
    assert_eq!(get(&server, TAIL).await.0, 401);
    let mut tail = Messages::request(request(&reader)).await;
    tail.position().await;
    let log = logged(&server, "/api/v1/logs/tail").await;
    assert!(log.contains("reader"), "{log}");
    keys.remove("reader").unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), tail.expect_end()).await;
    ended.expect("the tail outlives its key");
}
