//! One request and its response over a connection of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than every timeout of the server that a complete request can meet.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The time for which a live tail is read, which never ends.
const TAIL_TIMEOUT: Duration = Duration::from_secs(2);

/// Larger than every response of the server that is not a stream.
const MAX_BYTES: u64 = 64 << 20;

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it was received.
    Complete,
    /// The server closed the connection before the end.
    CutOff,
    /// The time or the size limit of [`exchange`] was reached. The rest was not read.
    Limit,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// Time from the connection until the last byte.
    pub elapsed: Duration,
}

impl Response {
    /// Returns the value of a header, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(header, value)| (header == name).then_some(value))
    }
}

/// Sends bytes and reads until the server closes the connection, for up to 30 seconds and 64 MiB.
///
/// # Errors
/// Returns an error if the server cannot be reached, sends no head in time, or responds with something
/// else than HTTP.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Response> {
    let start = Instant::now();
    let mut bytes = Vec::new();
    let is_tail = request.starts_with(b"GET /api/v1/logs/tail");
    let timeout = if is_tail { TAIL_TIMEOUT } else { TIMEOUT };
    let received = tokio::time::timeout(timeout, receive(address, request, &mut bytes));
    let is_closed = match received.await {
        Ok(received) => received.map(|()| (bytes.len() as u64) < MAX_BYTES)?,
        Err(_) => false,
    };
    let elapsed = start.elapsed();
    // A `100 Continue` precedes the response to a request that expects it.
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    let bytes = bytes.strip_prefix(interim).unwrap_or(&bytes);
    let head_end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
    let head_end =
        head_end.context(if is_closed { "no response" } else { "no response in time" })?;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
    let (body, is_whole) = body(&head, &bytes[head_end + 4..], request.starts_with(b"HEAD "));
    let end = match (is_whole, is_closed) {
        (true, _) => End::Complete,
        (false, true) => End::CutOff,
        (false, false) => End::Limit,
    };
    Ok(Response { status, head, body, end, elapsed })
}

/// Adds what the server sends to `bytes`, until it closes the connection or the limit is reached.
async fn receive(address: SocketAddr, request: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
    let (reader, mut writer) = stream.split();
    let mut reader = reader.take(MAX_BYTES);
    let send = async {
        // A server that refuses the request may close before it has read all of it.
        let _ = writer.write_all(request).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send => {}
        read = reader.read_to_end(bytes) => {
            // A reset after a complete response is a close.
            if let Err(error) = read && bytes.is_empty() {
                bail!("no response: {error}");
            }
        }
    }
    Ok(())
}

/// Returns the body in these bytes, and whether it is complete.
fn body(head: &str, bytes: &[u8], is_head_only: bool) -> (Vec<u8>, bool) {
    if head.contains("\r\ntransfer-encoding: chunked") && !is_head_only {
        return unchunk(bytes);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse::<usize>().ok());
    let is_whole = is_head_only || length.is_none_or(|length| bytes.len() == length);
    (bytes.to_vec(), is_whole)
}

/// Joins the chunks of a body. Returns `false` if the last one is missing.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line_end) = rest.windows(2).position(|end| end == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line_end]).ok();
        let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else { break };
        if size == 0 {
            return (body, true);
        }
        let start = line_end + 2;
        let Some(chunk) = rest.get(start..start + size) else { break };
        body.extend_from_slice(chunk);
        let Some(next) = rest.get(start + size + 2..) else { break };
        rest = next;
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use super::{body, unchunk};

    #[test]
    fn chunks_are_joined_and_a_cut_is_found() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), (b"abcde".to_vec(), true));
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nd"), (b"abc".to_vec(), false));
        assert_eq!(unchunk(b"3\r\nabc\r\n"), (b"abc".to_vec(), false));
    }

    #[test]
    fn body_that_is_shorter_than_its_length_is_cut_off() {
        let head = "http/1.1 200 ok\r\ncontent-length: 3";
        assert!(body(head, b"abc", false).1);
        assert!(!body(head, b"ab", false).1);
        assert!(body(head, b"", true).1, "the response to HEAD has no body");
    }
}
