//! The health routes, asked by hand: the TLS setup of an HTTP client must not matter here.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Succeeds when the route answers 200.
pub(super) async fn ok(port: u16, path: &str) -> Result<()> {
    let answer = tokio::time::timeout(PROBE_TIMEOUT, get(port, path))
        .await
        .with_context(|| format!("GET {path} is not answered"))??;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("GET {path}: {answer}");
    }
    Ok(())
}

async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
