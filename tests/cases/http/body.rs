//! How bodies come: compressed, as bombs, too slowly.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::NDJSON;
use super::api::Api;

#[tokio::test]
async fn compressed_bodies_are_read_and_bombs_are_stopped() -> Result<()> {
    let api = Api::with(&[("EYEGO_MAX_BODY_BYTES", "1 MiB")]).await?;
    let lines: Vec<_> = (0..100)
        .map(|n| json!({"userId": "zip", "action": "A", "metadata": {"n": n}}).to_string())
        .collect();
    let body = lines.join("\n");
    for (encoding, compressed) in
        [("gzip", gzip(body.as_bytes())?), ("zstd", zstd::encode_all(body.as_bytes(), 3)?)]
    {
        let headers = [("content-type", NDJSON), ("content-encoding", encoding)];
        let (status, answer) =
            api.post_with("/api/v1/logs/batch", &headers, compressed.clone()).await?;
        assert_eq!((status, &answer["accepted"]), (StatusCode::ACCEPTED, &json!(100)), "{answer}");

        let half = &compressed[..compressed.len() / 2];
        let (status, _) = api.post_with("/api/v1/logs/batch", &headers, half).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{encoding} cut off");
    }
    let zeros = vec![b' '; 64 << 20];
    let before = api.server.rss_bytes()?;
    for (encoding, bomb) in [("gzip", gzip(&zeros)?), ("zstd", zstd::encode_all(&zeros[..], 3)?)] {
        let headers = [("content-type", NDJSON), ("content-encoding", encoding)];
        let (status, _) = api.post_with("/api/v1/logs/batch", &headers, bomb).await?;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{encoding}");
    }
    let grown = api.server.rss_bytes()?.saturating_sub(before);
    assert!(grown < 50 << 20, "memory grew by {grown} bytes");
    Ok(())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Sends `first`, then one byte a second; answers the head of what the server says.
async fn trickle(api: &Api, first: &[u8]) -> Result<(String, Duration)> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", api.server.port())).await?;
    stream.write_all(first).await?;
    let (mut reader, mut writer) = stream.split();
    let mut answer = vec![0; 4096];
    loop {
        tokio::select! {
            read = reader.read(&mut answer) => {
                let read = read?;
                return Ok((String::from_utf8_lossy(&answer[..read]).into_owned(), start.elapsed()));
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => writer.write_all(b"x").await?,
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "never answered");
    }
}

#[tokio::test]
async fn a_body_or_a_head_that_trickles_is_a_408() -> Result<()> {
    let api = Api::start().await?;
    let body = b"POST /api/v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                 content-length: 1000\r\n\r\n{";
    let head = b"POST /api/v1/logs HTTP/1.1\r\nhost: x\r\nx-slow: ";
    for (answer, elapsed) in [trickle(&api, body).await?, trickle(&api, head).await?] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        assert_eq!(serde_json::from_str::<Value>(body)?["status"], "fail");
        assert!(elapsed < Duration::from_secs(25), "{elapsed:?}");
    }
    Ok(())
}
