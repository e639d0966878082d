//! One request and its response over a connection of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than every timeout of the server that a complete request can meet.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Larger than every response of the server that is not a stream.
const MAX_BYTES: u64 = 64 << 20;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
    /// Time from the connection until the last byte.
    pub elapsed: Duration,
}

/// Sends bytes and reads until the server closes the connection.
///
/// # Errors
/// Returns an error if the server cannot be reached, does not respond in time, or responds with
/// something else than HTTP.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Response> {
    let start = Instant::now();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
        let (reader, mut writer) = stream.split();
        let mut reader = reader.take(MAX_BYTES);
        let mut bytes = Vec::new();
        let send = async {
            // A server that refuses the request may close before it has read all of it.
            let _ = writer.write_all(request).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = send => {}
            read = reader.read_to_end(&mut bytes) => {
                // A reset after a complete response is a close.
                if let Err(error) = read && bytes.is_empty() {
                    bail!("no response: {error}");
                }
            }
        }
        Ok(bytes)
    };
    let bytes = tokio::time::timeout(TIMEOUT, exchange).await.context("no response in time")??;
    let elapsed = start.elapsed();
    // A `100 Continue` precedes the response to a request that expects it.
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    let bytes = bytes.strip_prefix(interim).unwrap_or(&bytes);
    let head_end = bytes.windows(4).position(|end| end == b"\r\n\r\n").context("no response")?;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
    let body = &bytes[head_end + 4..];
    let body = if head.contains("\r\ntransfer-encoding: chunked") {
        unchunk(body).context("the chunked response is cut off")?
    } else {
        body.to_vec()
    };
    Ok(Response { status, head, body, elapsed })
}

/// Joins the chunks of a body, or returns `None` if it is incomplete.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let start = line_end + 2;
        body.extend_from_slice(rest.get(start..start + size)?);
        rest = rest.get(start + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::unchunk;

    #[test]
    fn chunks_are_joined_and_a_cut_is_found() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), Some(b"abcde".to_vec()));
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nd"), None);
        assert_eq!(unchunk(b"3\r\nabc\r\n"), None);
    }
}
