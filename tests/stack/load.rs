//! A load generator for HTTP/1.1. It uses as little CPU as possible, because it shares the cores
//! with the server under load.
//!
//! Each connection is a task that writes a request, reads the response's head and
//! `Content-Length` bytes of body, notes the status and starts over. It remembers nothing about
//! the events. [`Scenario`](crate::chaos::Scenario) sends events with retries and checks afterwards
//! that each acknowledged event is stored once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The pause after a 503: shorter than `Retry-After` asks for.
const PAUSE_AFTER_503: Duration = Duration::from_millis(200);

/// What to send, on how many connections and for how long.
pub struct Load {
    /// The server's address.
    pub address: SocketAddr,
    /// The number of connections, each with one request in flight.
    pub connections: usize,
    /// The time after which no more requests are sent.
    pub duration: Duration,
    /// Makes the `n`th request.
    pub request: Arc<RequestFn>,
    /// Requests per second, evenly spaced. A latency then counts from the moment at which its
    /// request was due, so that a pause of the server is not hidden by requests that were sent
    /// late. `None`: each connection sends as soon as it has its response.
    pub rate: Option<u64>,
}

/// Makes the `n`th request.
pub type RequestFn = dyn Fn(u64) -> Request + Send + Sync;

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The bytes to write.
    pub bytes: Vec<u8>,
    /// If set, the connection is closed this long after the request was written, without waiting
    /// for the response, and opened again for the next one.
    pub hang_up_after: Option<Duration>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The responses to a load.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The number of responses with a 2xx status.
    pub accepted: u64,
    /// The number of responses with status 503.
    pub unavailable: u64,
    /// The number of all other responses.
    pub others: u64,
    /// The number of connections that broke and were opened again.
    pub broken: u64,
    /// The time that the load took.
    pub elapsed: Duration,
    /// The latency of each response, ascending, in microseconds.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// Returns the accepted requests per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }

    /// Returns the latency that this share (0 to 1) of the responses did not exceed.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a vector"
    )]
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share) as usize;
        Duration::from_micros(self.latencies.get(index).copied().unwrap_or(0).into())
    }

    fn add(&mut self, part: Self) {
        self.accepted += part.accepted;
        self.unavailable += part.unavailable;
        self.others += part.others;
        self.broken += part.broken;
        self.latencies.extend(part.latencies);
    }
}

/// Returns an event of about 200 bytes, of one of 10,000 users.
#[must_use]
pub fn event(n: u64) -> String {
    format!(
        r#"{{"userId":"user-{}","action":"CLICK_BUTTON","metadata":{{"page":"home","browser":"chrome","n":{n},"referrer":"https://example.com/a/b","width":1920,"tags":["a","b"],"ratio":0.75}}}}"#,
        n % 10_000
    )
}

/// Makes requests of one event each.
#[must_use]
pub fn single_requests() -> Arc<RequestFn> {
    Arc::new(|n| post("/api/v1/logs", "application/json", event(n).as_bytes()))
}

/// Makes requests of `size` events each, as NDJSON. It cycles through 16 prepared requests, so that
/// preparing them costs nothing during the load.
#[must_use]
pub fn ndjson_requests(size: u64) -> Arc<RequestFn> {
    let requests: Vec<Request> = (0..16)
        .map(|batch| {
            let lines: Vec<_> = (0..size).map(|n| event(batch * size + n)).collect();
            post("/api/v1/logs/batch", "application/x-ndjson", lines.join("\n").as_bytes())
        })
        .collect();
    Arc::new(move |n| {
        let index = usize::try_from(n).unwrap_or(0) % requests.len();
        requests[index].clone()
    })
}

/// Adds a token to the requests.
#[must_use]
pub fn with_token(request: Arc<RequestFn>, token: &str) -> Arc<RequestFn> {
    let header = format!("authorization: Bearer {token}\r\n").into_bytes();
    Arc::new(move |n| {
        let mut request = request(n);
        let first_line = find(&request.bytes, b"\r\n").map_or(0, |end| end + 2);
        request.bytes.splice(first_line..first_line, header.iter().copied());
        request
    })
}

/// Returns a POST request.
#[must_use]
pub fn post(path: &str, content_type: &str, body: &[u8]) -> Request {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Request { bytes, hang_up_after: None }
}

impl Load {
    /// Sends the requests. Dropping the future closes all connections.
    ///
    /// # Errors
    /// Returns an error if the server cannot be reached.
    pub async fn run(self) -> Result<Outcome> {
        let start = Instant::now();
        let deadline = start + self.duration;
        let pace = Arc::new(Pace { start, rate: self.rate, next: AtomicU64::new(0) });
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let (request, pace) = (Arc::clone(&self.request), Arc::clone(&pace));
            connections.spawn(connection(self.address, deadline, request, pace));
        }
        let mut outcome = Outcome::default();
        while let Some(part) = connections.join_next().await {
            outcome.add(part.context("a connection panicked")??);
        }
        outcome.elapsed = start.elapsed();
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

/// The number of the next request, and when it is due.
struct Pace {
    start: Instant,
    rate: Option<u64>,
    next: AtomicU64,
}

impl Pace {
    /// Waits until the next request is due. Returns its number and the start of its latency.
    async fn next(&self) -> (u64, Instant) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(rate) = self.rate else { return (n, Instant::now()) };
        let due = self.start + Duration::from_micros(n * 1_000_000 / rate.max(1));
        tokio::time::sleep_until(due.into()).await;
        (n, due)
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection(
    address: SocketAddr,
    deadline: Instant,
    request: Arc<RequestFn>,
    pace: Arc<Pace>,
) -> Result<Outcome> {
    let mut stream = connect(address).await?;
    let mut outcome = Outcome::default();
    let mut response = Vec::with_capacity(4096);
    while Instant::now() < deadline {
        let (n, sent) = pace.next().await;
        let Request { bytes, hang_up_after } = request(n);
        if let Some(delay) = hang_up_after {
            // A server that is stopping may have closed the connection already.
            let _ = stream.write_all(&bytes).await;
            tokio::time::sleep(delay).await;
            stream = connect(address).await?;
            continue;
        }
        let status = exchange(&mut stream, &bytes, &mut response).await;
        match status {
            Ok(200..=299) => outcome.accepted += 1,
            Ok(503) => outcome.unavailable += 1,
            Ok(_) => outcome.others += 1,
            Err(_) => {
                outcome.broken += 1;
                stream = connect(address).await?;
                continue;
            }
        }
        let micros = sent.elapsed().as_micros();
        outcome.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
        if matches!(status, Ok(503)) {
            tokio::time::sleep(PAUSE_AFTER_503).await;
        }
    }
    Ok(outcome)
}

async fn exchange(stream: &mut TcpStream, request: &[u8], response: &mut Vec<u8>) -> Result<u16> {
    stream.write_all(request).await?;
    read_response(stream, response).await
}

async fn read_response(stream: &mut TcpStream, response: &mut Vec<u8>) -> Result<u16> {
    response.clear();
    loop {
        if stream.read_buf(response).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(head_end) = find(response, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&response[..head_end])?.to_ascii_lowercase();
        let status = head.get(9..12).context("no status")?.parse()?;
        let length: usize = match head.split_once("content-length: ") {
            Some((_, rest)) => rest.lines().next().unwrap_or_default().trim().parse()?,
            None => 0,
        };
        while response.len() < head_end + 4 + length {
            if stream.read_buf(response).await? == 0 {
                bail!("the server closed the connection within a response");
            }
        }
        return Ok(status);
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
