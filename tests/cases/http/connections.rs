//! Many, slow and stubborn connections.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use stack::eventually;
use stack::process::Signal;
use stack::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server_with;
use crate::fixture::{NDJSON, TIMEOUT, get, logged, post_bytes, post_log, ready, stored};
use crate::metrics::Scrape;

const MIB: usize = 1 << 20;

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

/// Opens a connection and sends this.
async fn send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(server).await;
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Returns the head of a batch of this size.
fn batch_head(size: usize) -> Vec<u8> {
    format!(
        "POST /api/v1/logs/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NDJSON}\r\n\
         content-length: {size}\r\n\r\n"
    )
    .into_bytes()
}

async fn response(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let length = stream.read(&mut bytes).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_large_bodies_end_soon_and_never_deny_single_events() {
    let server = server_with(&[("EYEGO_MAX_IN_FLIGHT_BYTES", "64 MiB")]).await;
    let event = json!({"userId": "u", "action": "A"});
    let line = format!("{event}\n");
    let large_event = json!({"userId": "u", "action": "A", "metadata": {"x": "y".repeat(100_000)}});
    let large = format!("{large_event}\n").repeat(120);
    let headers = [("content-type", NDJSON)];
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut request = batch_head(16 * MIB);
        request.extend_from_slice(&line.as_bytes().repeat(15 * MIB / line.len()));
        slow.push(send(&server, &request).await);
    }
    let start = Instant::now();
    eventually("large bodies are refused", TIMEOUT, async || {
        let body = large.clone();
        let (status, response) = post_bytes(&server, "/api/v1/logs/batch", &headers, body).await;
        ensure!(status == 503, "{response}");
        let message = response["message"].as_str().unwrap_or_default();
        ensure!(message.contains("EYEGO_MAX_IN_FLIGHT_BYTES"), "{response}");
        Ok(())
    })
    .await
    .unwrap();
    for _ in 0..20 {
        let (status, response) = post_log(&server, &event).await;
        assert_eq!(status, 202, "{response}");
    }
    // One byte per second earns no time, however fast the beginning was.
    for mut stream in slow {
        let text = loop {
            tokio::select! {
                text = response(&mut stream) => break text,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    let _ = stream.write_all(b"\n").await;
                }
            }
        };
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    eventually("large bodies are accepted again", TIMEOUT, async || {
        let body = line.repeat(10_000);
        let (status, response) = post_bytes(&server, "/api/v1/logs/batch", &headers, body).await;
        ensure!(status == 202, "{response}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_and_health_has_a_reserve() {
    let server = server_with(&[("EYEGO_MAX_CONNECTIONS", "8")]).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(connect(&server).await);
    }
    assert_eq!(post_log(&server, &json!({"userId": "u", "action": "A"})).await.0, 202);
    let evicted = Scrape::of(&server).await.get("eyego_http_connections_evicted_total");
    assert!(evicted >= 33.0, "{evicted}");
    drop(idle);

    // Requests in progress do not make room.
    let mut busy = Vec::new();
    for _ in 0..8 {
        busy.push(send(&server, &batch_head(1000)).await);
    }
    let message = "the limit of 8 connections is reached; retry later";
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let (status, body) = get(&server, "/api/v1/logs").await;
        if status == 503 {
            assert_eq!(body["message"], message);
            break;
        }
        assert!(Instant::now() < deadline, "{status}: {body}");
        // One that the server had not read yet may have made room.
        busy.push(send(&server, &batch_head(1000)).await);
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(get(&server, path).await.0, 200, "{path}");
    }
    assert_eq!(Scrape::of(&server).await.get("eyego_http_connections_refused_total"), 0.0);
    drop(busy);
    eventually("requests are served again", TIMEOUT, async || {
        ensure!(get(&server, "/api/v1/logs").await.0 == 200);
        Ok(())
    })
    .await
    .unwrap();
    let warning = "the limit of connections is reached";
    let log = logged(&server, warning).await;
    assert_eq!(log.matches(warning).count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_with_few_file_descriptors_serves_beside_idle_sockets() {
    let server = ready(Server::builder().max_open_files(80)).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(connect(&server).await);
    }
    let (status, body) = post_log(&server, &json!({"userId": "u", "action": "A"})).await;
    assert_eq!(status, 202, "{body}");
    stored(&server, body["id"].as_str().unwrap()).await;
    let log = server.log();
    assert!(!log.contains("cannot accept"), "{log}");
    assert!(log.matches(" WARN ").count() <= 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_does_not_wait_for_clients_that_neither_read_nor_send() {
    let server = server_with(&[]).await;
    let large = json!({"userId": "u", "action": "A", "metadata": {"x": "y".repeat(200_000)}});
    for _ in 0..40 {
        assert_eq!(post_log(&server, &large).await.0, 202);
    }
    let page = "GET /api/v1/logs?limit=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let _unread = send(&server, page.as_bytes()).await;
    let _pipelined = send(&server, format!("{page}{page}GET / HT").as_bytes()).await;
    let mut half = send(&server, b"GET / HT").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    server.signal(Signal::Terminate).unwrap();
    let text = response(&mut half).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("stopping"), "{text}");
    drop(half);
    let status = server.wait_exit(TIMEOUT).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}
