//! Requests to the health routes over a plain socket, without the set-up time of an HTTP client.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The timeout of one request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns an error unless the route returns 200.
pub(super) async fn ok(port: u16, path: &str) -> Result<()> {
    let response = tokio::time::timeout(PROBE_TIMEOUT, get(port, path))
        .await
        .with_context(|| format!("no response to GET {path}"))??;
    if !response.starts_with("HTTP/1.1 200 ") {
        bail!("GET {path}: {response}");
    }
    Ok(())
}

async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}
