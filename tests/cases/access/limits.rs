//! Rate limits of keys and of addresses, and concurrent requests.

use anyhow::ensure;
use stack::eventually;
use stack::keys::KeysFile;
use stack::server::Server;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{EVENT, Response, get_as, post_as, post_event, send, with_keys};
use crate::fixture::{NDJSON, TIMEOUT, ready, url};

async fn post_batch(server: &Server, token: &str, events: usize) -> Response {
    let body = vec![EVENT; events].join("\n");
    post_as(server, token, "/api/v1/logs/batch", NDJSON, body).await
}

fn assert_limited(response: &Response) {
    assert_eq!(response.status, 429, "{}", response.body);
    assert_eq!(response.body["status"], "fail");
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
}

#[tokio::test]
async fn events_beyond_the_rate_of_a_key_are_429() {
    let keys = KeysFile::new().unwrap();
    // A burst comes back so slowly that the test does not see it.
    let token = keys.add_with("slow", &["ingest"], "rate = \"1/s\"\nburst = 10").unwrap();
    let free = keys.add("free", &["ingest", "metrics"]).unwrap();
    let server = ready(with_keys(&keys)).await;

    let response = post_batch(&server, &token, 11).await;
    assert_eq!(response.status, 413, "{}", response.body);
    assert!(response.message().contains("up to 10 events"), "{}", response.body);
    let response = post_batch(&server, &token, 8).await;
    assert_eq!(
        (response.status, &response.body["accepted"]),
        (202, &8.into()),
        "{}",
        response.body
    );
    assert_limited(&post_batch(&server, &token, 8).await);
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(statuses.len() < 10, "{statuses:?}");
        let response = post_event(&server, &token).await;
        statuses.push(response.status);
        if response.status == 429 {
            assert_limited(&response);
        }
    }
    // Another key is not affected.
    assert_eq!(post_batch(&server, &free, 100).await.status, 202);

    let metrics = get_as(&server, &free, "/metrics").await;
    let metrics = metrics.body.as_str().unwrap().to_owned();
    let sample = |series: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    };
    // Eight events of the batch and the single one.
    assert_eq!(sample("eyego_ingest_refused_total{reason=\"rate_limited\"}"), 9, "{metrics}");
    assert_eq!(sample("eyego_ingest_refused_total{reason=\"too_large\"}"), 11, "{metrics}");
    assert_eq!(sample("eyego_key_limited_total{key=\"slow\"}"), 2, "{metrics}");
    assert_eq!(sample("eyego_key_limited_total{key=\"free\"}"), 0, "{metrics}");
}

#[tokio::test]
async fn addresses_are_limited_only_if_configured() {
    let server =
        ready(Server::builder().env("EYEGO_ADDRESS_RATE", "1").env("EYEGO_ADDRESS_BURST", "3"))
            .await;
    let post = async || {
        let request = reqwest::Client::new().post(url(&server, "/api/v1/logs"));
        send(request.header("content-type", "application/json").body(EVENT)).await
    };
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(statuses.len() < 10, "{statuses:?}");
        statuses.push(post().await.status);
    }
    assert!(statuses.len() > 3, "{statuses:?}");
    let refused = server.sample("eyego_ingest_refused_total{reason=\"rate_limited\"}").await;
    assert_eq!(refused.unwrap(), Some(1));
}

#[tokio::test]
async fn concurrent_requests_of_a_key_are_limited() {
    let keys = KeysFile::new().unwrap();
    let token = keys.add_with("one", &["ingest"], "concurrent = 1").unwrap();
    let server = ready(with_keys(&keys)).await;
    let mut slow = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/logs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        EVENT.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    eventually("a second request to be refused", TIMEOUT, async || {
        let response = post_event(&server, &token).await;
        ensure!(response.status == 429, "{}", response.status);
        assert!(response.message().contains("up to 1 requests"), "{}", response.body);
        Ok(())
    })
    .await
    .unwrap();
    slow.write_all(EVENT.as_bytes()).await.unwrap();
    eventually("the next request to be accepted", TIMEOUT, async || {
        let response = post_event(&server, &token).await;
        ensure!(response.status == 202, "{}", response.status);
        Ok(())
    })
    .await
    .unwrap();
}
