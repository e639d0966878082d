//! Request bodies: compressed, decompressing to too much, and too slow.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stack::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server_with;
use crate::fixture::{NDJSON, embedded_server, post_bytes};

#[tokio::test]
async fn compressed_body_is_read_and_bomb_returns_413() {
    let server = server_with(&[("EYEGO_MAX_BODY_BYTES", "1 MiB")]).await;
    let lines: Vec<_> = (0..100)
        .map(|n| json!({"userId": "zip", "action": "A", "metadata": {"n": n}}).to_string())
        .collect();
    let body = lines.join("\n");
    for (encoding, compressed) in [("gzip", gzip(body.as_bytes())), ("zstd", zstd(body.as_bytes()))]
    {
        let headers = [("content-type", NDJSON), ("content-encoding", encoding)];
        let (status, response) =
            post_bytes(&server, "/api/v1/logs/batch", &headers, compressed.clone()).await;
        assert_eq!((status, &response["accepted"]), (202, &json!(100)), "{response}");

        let half = &compressed[..compressed.len() / 2];
        let (status, _) = post_bytes(&server, "/api/v1/logs/batch", &headers, half).await;
        assert_eq!(status, 400, "{encoding} cut off");
    }
    let zeros = vec![b' '; 64 << 20];
    let before = server.rss_bytes().unwrap();
    for (encoding, bomb) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
        let headers = [("content-type", NDJSON), ("content-encoding", encoding)];
        let (status, _) = post_bytes(&server, "/api/v1/logs/batch", &headers, bomb).await;
        assert_eq!(status, 413, "{encoding}");
    }
    let grown = server.rss_bytes().unwrap().saturating_sub(before);
    assert!(grown < 50 << 20, "memory grew by {grown} bytes");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Sends `first` and then one byte per second. Returns the response and the time until it came.
async fn trickle(server: &Server, first: &[u8]) -> (String, Duration) {
    let start = Instant::now();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(first).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut response = vec![0; 4096];
    loop {
        tokio::select! {
            read = reader.read(&mut response) => {
                let read = read.unwrap();
                return (String::from_utf8_lossy(&response[..read]).into_owned(), start.elapsed());
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => writer.write_all(b"x").await.unwrap(),
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no response");
    }
}

#[tokio::test]
async fn slow_head_or_body_returns_408() {
    let server = embedded_server().await;
    let body =
        b"POST /api/v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: 1000\r\n\r\n{";
    let head = b"POST /api/v1/logs HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    for (response, elapsed) in [trickle(&server, body).await, trickle(&server, head).await] {
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["status"], "fail");
        assert!(elapsed < Duration::from_secs(25), "{elapsed:?}");
    }
}
