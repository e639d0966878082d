//! The proxy in front of an echo server.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Proxy;
use crate::eventually;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

/// Starts a server that sends back each byte, and returns its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port
}

async fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", proxy.port())).await
}

/// Sends the bytes and expects them back.
async fn echoes(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).await?;
    assert!(received == bytes, "other bytes were received");
    Ok(())
}

#[tokio::test]
async fn bytes_and_end_of_stream_are_forwarded() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    let bytes: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    timeout(LONG, echoes(&mut stream, &bytes)).await.unwrap().unwrap();
    assert_eq!(proxy.connections(), 1);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn cut_ends_open_connections_only() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    echoes(&mut stream, b"a").await.unwrap();
    proxy.cut();
    let ended = timeout(LONG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let mut stream = connect(&proxy).await.unwrap();
    timeout(LONG, echoes(&mut stream, b"b")).await.unwrap().unwrap();
}

#[tokio::test]
async fn refused_port_is_closed_until_healed() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    echoes(&mut stream, b"a").await.unwrap();
    proxy.refuse();
    let ended = timeout(LONG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    eventually("the port to be closed", LONG, async || {
        ensure!(connect(&proxy).await.is_err(), "it still listens");
        Ok(())
    })
    .await
    .unwrap();
    proxy.heal();
    let connecting = eventually("the port to be open", LONG, async || Ok(connect(&proxy).await?));
    let mut stream = connecting.await.unwrap();
    timeout(LONG, echoes(&mut stream, b"b")).await.unwrap().unwrap();
}

#[tokio::test]
async fn delay_applies_per_direction_and_keeps_throughput() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    proxy.delay(Duration::from_millis(30), Duration::from_millis(70));
    let began = Instant::now();
    echoes(&mut stream, b"a").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    // One after the other, a hundred chunks would take ten seconds.
    let (mut read, mut write) = stream.split();
    let sending = async {
        for _ in 0..100 {
            write.write_all(&[7; 100]).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    let mut received = vec![0; 10_000];
    let began = Instant::now();
    tokio::try_join!(sending, read.read_exact(&mut received)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    proxy.heal();
}

#[tokio::test]
async fn stall_holds_bytes_back_and_loses_none() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut old = connect(&proxy).await.unwrap();
    echoes(&mut old, b"a").await.unwrap();
    proxy.stall();
    let mut new = connect(&proxy).await.unwrap();
    assert!(timeout(SHORT, echoes(&mut old, b"b")).await.is_err(), "it was forwarded");
    assert!(timeout(SHORT, echoes(&mut new, b"c")).await.is_err(), "it was forwarded");
    proxy.heal();
    for (stream, held) in [(&mut old, b"b"), (&mut new, b"c")] {
        let mut received = [0; 1];
        timeout(LONG, stream.read_exact(&mut received)).await.unwrap().unwrap();
        assert_eq!(&received, held);
    }
}

#[tokio::test]
async fn dropped_proxy_closes_its_connections() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connect(&proxy).await.unwrap();
    echoes(&mut stream, b"a").await.unwrap();
    drop(proxy);
    let ended = timeout(LONG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
