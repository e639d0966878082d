//! The proxy before an echo.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Proxy;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

/// Answers each byte with itself.
async fn echo() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    Ok(port)
}

async fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", proxy.port())).await
}

/// The bytes come back.
async fn echoes(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await?;
    assert!(answer == bytes, "other bytes came back");
    Ok(())
}

#[tokio::test]
async fn bytes_and_the_end_are_passed_on() -> Result<()> {
    let proxy = Proxy::start(echo().await?)?;
    let mut stream = connect(&proxy).await?;
    let bytes: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    timeout(LONG, echoes(&mut stream, &bytes)).await??;
    assert_eq!(proxy.connections(), 1);
    stream.shutdown().await?;
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await??;
    assert!(rest.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_cut_ends_what_is_open_and_nothing_else() -> Result<()> {
    let proxy = Proxy::start(echo().await?)?;
    let mut stream = connect(&proxy).await?;
    echoes(&mut stream, b"a").await?;
    proxy.cut();
    let ended = timeout(LONG, stream.read(&mut [0; 1])).await?;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let mut stream = connect(&proxy).await?;
    timeout(LONG, echoes(&mut stream, b"b")).await??;
    Ok(())
}

#[tokio::test]
async fn a_refused_port_is_nobodys_until_it_is_healed() -> Result<()> {
    let proxy = Proxy::start(echo().await?)?;
    let mut stream = connect(&proxy).await?;
    echoes(&mut stream, b"a").await?;
    proxy.refuse();
    let ended = timeout(LONG, stream.read(&mut [0; 1])).await?;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let deadline = Instant::now() + LONG;
    while connect(&proxy).await.is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.heal();
    let mut stream = loop {
        match connect(&proxy).await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    timeout(LONG, echoes(&mut stream, b"b")).await??;
    Ok(())
}

#[tokio::test]
async fn each_direction_has_its_delay_and_keeps_its_throughput() -> Result<()> {
    let proxy = Proxy::start(echo().await?)?;
    let mut stream = connect(&proxy).await?;
    proxy.delay(Duration::from_millis(30), Duration::from_millis(70));
    let began = Instant::now();
    echoes(&mut stream, b"a").await?;
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    // A hundred chunks that waited for one another would take ten seconds.
    let (mut read, mut write) = stream.split();
    let sending = async {
        for _ in 0..100 {
            write.write_all(&[7; 100]).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    let mut answer = vec![0; 10_000];
    let began = Instant::now();
    tokio::try_join!(sending, read.read_exact(&mut answer))?;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    proxy.heal();
    Ok(())
}

#[tokio::test]
async fn a_stall_holds_everything_and_loses_nothing() -> Result<()> {
    let proxy = Proxy::start(echo().await?)?;
    let mut old = connect(&proxy).await?;
    echoes(&mut old, b"a").await?;
    proxy.stall();
    let mut new = connect(&proxy).await?;
    assert!(timeout(SHORT, echoes(&mut old, b"b")).await.is_err(), "it was forwarded");
    assert!(timeout(SHORT, echoes(&mut new, b"c")).await.is_err(), "it was forwarded");
    proxy.heal();
    for (stream, held) in [(&mut old, b"b"), (&mut new, b"c")] {
        let mut answer = [0; 1];
        timeout(LONG, stream.read_exact(&mut answer)).await??;
        assert_eq!(&answer, held);
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_proxy_leaves_nobody_hanging() -> Result<()> {
    let proxy = Proxy::start(echo().await?)?;
    let mut stream = connect(&proxy).await?;
    echoes(&mut stream, b"a").await?;
    drop(proxy);
    let ended = timeout(LONG, stream.read(&mut [0; 1])).await?;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    Ok(())
}
