//! A load generator for HTTP/1.1, as cheap as it can be: it shares the cores with what it loads.
//!
//! Each connection is a task that writes a request, reads the answer's head and as many bytes as
//! that announces, notes the status, and begins again. It understands what our server and a bare
//! handler answer (`Content-Length`), no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A caller that is refused comes again sooner than `Retry-After` says, but not at once.
const PAUSE_AFTER_503: Duration = Duration::from_millis(200);

/// What to send, how much of it, and for how long.
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// How many connections, each with one request under way.
    pub connections: usize,
    /// When to end.
    pub duration: Duration,
    /// The bytes of the `n`th request.
    pub request: Arc<Request>,
    /// Requests in a second, evenly. The time of an answer then counts from when its request was
    /// due, so that a pause of the server is not hidden by requests that were never sent. None:
    /// each connection sends as soon as it has its answer.
    pub rate: Option<u64>,
}

/// Makes the bytes of the `n`th request.
pub type Request = dyn Fn(u64) -> Vec<u8> + Send + Sync;

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Answers with a 2xx.
    pub accepted: u64,
    /// Answers with a 503.
    pub unavailable: u64,
    /// All other answers.
    pub others: u64,
    /// Connections that broke, and were opened anew.
    pub broken: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The time of each answer, ascending, in microseconds.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// Accepted requests per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the answers did not exceed.
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
}

/// An event of about 200 bytes, of one of 10,000 users.
#[must_use]
pub fn event(n: u64) -> String {
    format!(
        r#"{{"userId":"user-{}","action":"CLICK_BUTTON","metadata":{{"page":"home","browser":"chrome","n":{n},"referrer":"https://example.com/a/b","width":1920,"tags":["a","b"],"ratio":0.75}}}}"#,
        n % 10_000
    )
}

/// Requests of one event each.
#[must_use]
pub fn single_requests() -> Arc<Request> {
    Arc::new(|n| post("/api/v1/logs", "application/json", event(n).as_bytes()))
}

/// Requests of `size` events each, as NDJSON. Some are made before and sent again and again: what
/// is measured is the server, not this.
#[must_use]
pub fn ndjson_requests(size: u64) -> Arc<Request> {
    let requests: Vec<Vec<u8>> = (0..16)
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

/// The bytes of a POST.
#[must_use]
pub fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

impl Load {
    /// Runs.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn run(self) -> Result<Outcome> {
        let start = Instant::now();
        let deadline = start + self.duration;
        let pace = Arc::new(Pace { start, rate: self.rate, next: AtomicU64::new(0) });
        let tasks: Vec<_> = (0..self.connections)
            .map(|_| {
                let (request, pace) = (Arc::clone(&self.request), Arc::clone(&pace));
                tokio::spawn(connection(self.address, deadline, request, pace))
            })
            .collect();
        let mut outcome = Outcome::default();
        for task in tasks {
            let part = task.await.context("a connection panicked")??;
            outcome.accepted += part.accepted;
            outcome.unavailable += part.unavailable;
            outcome.others += part.others;
            outcome.broken += part.broken;
            outcome.latencies.extend(part.latencies);
        }
        outcome.elapsed = start.elapsed();
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

/// Which request is next, and when it is due.
struct Pace {
    start: Instant,
    rate: Option<u64>,
    next: AtomicU64,
}

impl Pace {
    /// The number of the next request, and the moment from which its time counts.
    async fn next(&self) -> (u64, Instant) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(rate) = self.rate else { return (n, Instant::now()) };
        let due = self.start + Duration::from_micros(n * 1_000_000 / rate.max(1));
        tokio::time::sleep_until(due.into()).await;
        (n, due)
    }
}

async fn connection(
    address: SocketAddr,
    deadline: Instant,
    request: Arc<Request>,
    pace: Arc<Pace>,
) -> Result<Outcome> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut outcome = Outcome::default();
    let mut answer = Vec::with_capacity(4096);
    while Instant::now() < deadline {
        let (n, sent) = pace.next().await;
        let bytes = request(n);
        let mut pause = false;
        match exchange(&mut stream, &bytes, &mut answer).await {
            Ok(200..=299) => outcome.accepted += 1,
            Ok(503) => {
                outcome.unavailable += 1;
                pause = true;
            }
            Ok(_) => outcome.others += 1,
            Err(_) => {
                outcome.broken += 1;
                stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                continue;
            }
        }
        let micros = sent.elapsed().as_micros();
        outcome.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
        if pause {
            tokio::time::sleep(PAUSE_AFTER_503).await;
        }
    }
    Ok(outcome)
}

async fn exchange(stream: &mut TcpStream, request: &[u8], answer: &mut Vec<u8>) -> Result<u16> {
    stream.write_all(request).await?;
    read_answer(stream, answer).await
}

async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<u16> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(head_end) = find(answer, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..head_end])?.to_ascii_lowercase();
        let status = head.get(9..12).context("no status")?.parse()?;
        let length: usize = match head.split_once("content-length: ") {
            Some((_, rest)) => rest.lines().next().unwrap_or_default().trim().parse()?,
            None => 0,
        };
        while answer.len() < head_end + 4 + length {
            if stream.read_buf(answer).await? == 0 {
                bail!("the server closed the connection within an answer");
            }
        }
        return Ok(status);
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// User and system time of a process, in seconds.
///
/// # Errors
/// There is no such process, or no `/proc`.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    /// The unit of the file: 100 a second on every Linux, whatever the kernel's own.
    const TICKS_PER_SECOND: f64 = 100.0;

    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name, in parentheses, and may hold anything; the times are fields
    // 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/<pid>/stat")?;
    let times: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    ensure!(times.len() == 2, "no times in /proc/<pid>/stat");
    Ok(times.iter().sum::<f64>() / TICKS_PER_SECOND)
}
