//! Sends random requests to a server and checks every response.
//!
//! `cargo run --release -p eyego-log-tests --bin fuzz_http -- --minutes 10`

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::Value;
use stack::hostile::{End, Mutator, Request, Response, exchange};
use stack::server::Server;
use tokio::task::JoinSet;

/// Maximum size of a response, except of a page.
const MAX_RESPONSE: usize = 2 << 20;
/// Maximum size of a response to a request of 64 KiB or more, and of a page.
const MAX_LARGE_RESPONSE: usize = 17 << 20;
/// Bytes of a compressed export that are looked at.
const MAX_DECOMPRESSED: u64 = 64 << 20;
/// The media types of responses without a size limit: exports and the live tail.
const STREAMS: [&str; 4] =
    ["application/x-ndjson", "text/csv", "application/vnd.apache.parquet", "text/event-stream"];
/// Memory by which the server may grow after the first tenth of the time, in bytes.
const MAX_GROWTH: u64 = 128 << 20;
/// Violations that are printed.
const MAX_SHOWN: usize = 20;

/// Sends mutated bodies, queries and headers to a server. Fails if a response is a 5xx other than 503,
/// lacks the envelope or is too large, if there is no response, if the server panics or exits, or if
/// its memory grows. The same seed sends the same requests.
#[derive(Debug, Parser)]
struct Cli {
    /// The duration, in minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of connections.
    #[arg(long, default_value_t = 8)]
    connections: u64,
    /// The address of a running server, whose memory and log are not checked. Default: starts a
    /// server with its default settings.
    #[arg(long)]
    address: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Summary {
    statuses: BTreeMap<u16, u64>,
    largest: usize,
    slowest: Duration,
    violations: Vec<String>,
}

impl Summary {
    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.largest = self.largest.max(other.largest);
        self.slowest = self.slowest.max(other.slowest);
        self.violations.extend(other.violations);
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a summary for a person")]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let server = match cli.address {
        Some(_) => None,
        None => Some(Server::builder().start().await?),
    };
    if let Some(server) = &server {
        server.wait_ready(Duration::from_secs(20)).await?;
    }
    let address = cli.address.or_else(|| server.as_ref().map(Server::address));
    let address = address.context("no address")?;
    let duration = Duration::from_secs_f64(cli.minutes * 60.0);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in 0..cli.connections {
        // Odd multiples of a large odd number, so that no two connections share a seed.
        let seed = cli.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(connection);
        tasks.spawn(send_until(address, seed, start + duration));
    }
    let memory = watch_memory(server.as_ref(), start, duration).await?;
    let mut summary = Summary::default();
    while let Some(part) = tasks.join_next().await {
        summary.add(part?);
    }
    if let Some((baseline, peak, end)) = memory {
        println!("memory: {} MiB, peak {}, end {}", baseline >> 20, peak >> 20, end >> 20);
        if end > baseline + MAX_GROWTH {
            summary.violations.push(format!("memory grew from {baseline} to {end} bytes"));
        }
    }
    if let Some(server) = &server {
        if server.log().contains("panicked") {
            let log = server.log();
            let line = log.lines().find(|line| line.contains("panicked")).unwrap_or_default();
            summary.violations.push(format!("the server panicked: {line}"));
        }
        if !server.is_running() {
            summary.violations.push("the server exited".to_owned());
        }
    }
    let requests: u64 = summary.statuses.values().sum();
    println!("seed {}: {requests} responses in {:.0?}", cli.seed, start.elapsed());
    println!("by status: {:?}", summary.statuses);
    println!("largest response: {} bytes, slowest: {:.1?}", summary.largest, summary.slowest);
    println!("{} violations", summary.violations.len());
    for violation in summary.violations.iter().take(MAX_SHOWN) {
        println!("- {violation}");
    }
    Ok(if summary.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send_until(address: SocketAddr, seed: u64, deadline: Instant) -> Summary {
    let mut mutator = Mutator::new(seed);
    let mut summary = Summary::default();
    while Instant::now() < deadline {
        let request = mutator.request();
        let bytes = request.to_bytes();
        let checked = match exchange(address, &bytes).await {
            Ok(response) => {
                *summary.statuses.entry(response.status).or_default() += 1;
                summary.largest = summary.largest.max(response.body.len());
                summary.slowest = summary.slowest.max(response.elapsed);
                check(&request, bytes.len(), &response)
            }
            Err(error) => Err(format!("{error:#}")),
        };
        if let Err(violation) = checked {
            let file = save(&bytes);
            let target = String::from_utf8_lossy(&request.target);
            let target: String = target.chars().take(100).collect();
            summary.violations.push(format!("{} {target}: {violation} ({file})", request.method));
        }
    }
    summary
}

fn check(request: &Request, sent: usize, response: &Response) -> Result<(), String> {
    let status = response.status;
    let size = response.body.len();
    if status >= 500 && status != 503 {
        return Err(format!("status {status}"));
    }
    let media = response.header("content-type").unwrap_or_default();
    let is_stream = status == 200 && STREAMS.iter().any(|stream| media.starts_with(stream));
    if response.end == End::CutOff || response.end == End::Limit && !is_stream {
        return Err(format!("status {status}: the response is not complete: {:?}", response.end));
    }
    let is_page = status == 200 && request.method == "GET";
    let max = if is_page || sent >= 64 << 10 { MAX_LARGE_RESPONSE } else { MAX_RESPONSE };
    if size > max && !is_stream {
        return Err(format!("a response of {size} bytes to {sent} bytes"));
    }
    if request.method == "HEAD" {
        return Ok(());
    }
    if is_stream {
        return check_stream(response, media);
    }
    // The description of the API has no envelope, and can be compressed.
    let is_document = status == 200 && request.target.starts_with(b"/openapi.json");
    if media.starts_with("application/json") && !is_document {
        let body: Value = serde_json::from_slice(&response.body)
            .map_err(|error| format!("status {status}: the response is not JSON: {error}"))?;
        let expected = match status {
            200..=299 => "success",
            400..=499 => "fail",
            _ => "error",
        };
        if body["status"] != expected {
            return Err(format!("status {status} with {}", body["status"]));
        }
        if status == 503 && !response.head.contains("retry-after:") {
            return Err("503 without Retry-After".to_owned());
        }
    } else if status >= 400 {
        return Err(format!("status {status} without the envelope"));
    }
    Ok(())
}

/// Checks that the first and the last line of an export in NDJSON are JSON, and that a compressed one can
/// be decompressed.
fn check_stream(response: &Response, media: &str) -> Result<(), String> {
    let body = match response.header("content-encoding") {
        Some(_) if response.end != End::Complete => return Ok(()),
        Some("gzip") => decompress(flate2::read::MultiGzDecoder::new(&response.body[..])),
        Some("zstd") => {
            zstd::Decoder::new(&response.body[..]).map_err(|e| e.to_string()).and_then(decompress)
        }
        _ => Ok(response.body.clone()),
    };
    let body = body.map_err(|error| format!("an export cannot be decompressed: {error}"))?;
    let is_whole = response.end == End::Complete && (body.len() as u64) < MAX_DECOMPRESSED;
    if is_whole && media.starts_with("application/x-ndjson") {
        let mut lines = body.split_inclusive(|byte| *byte == b'\n');
        for line in lines.next().into_iter().chain(lines.next_back()) {
            let is_line = line.ends_with(b"\n") && serde_json::from_slice::<Value>(line).is_ok();
            if !is_line {
                let line = line[..line.len().min(200)].escape_ascii();
                return Err(format!("a line of an export is not JSON: {line}"));
            }
        }
    }
    Ok(())
}

/// Decompresses the beginning of a stream.
fn decompress(stream: impl std::io::Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match stream.take(MAX_DECOMPRESSED).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// Keeps a request that violated a property, and returns the path of its file.
fn save(bytes: &[u8]) -> String {
    let dir = PathBuf::from("target/fuzz_http");
    let path = dir.join(format!("{:08x}.bin", crc32fast::hash(bytes)));
    match std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, bytes)) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("not saved: {error}"),
    }
}

/// Returns the memory after a tenth of the time, its peak since then and at the end.
async fn watch_memory(
    server: Option<&Server>,
    start: Instant,
    duration: Duration,
) -> Result<Option<(u64, u64, u64)>> {
    let Some(server) = server else { return Ok(None) };
    tokio::time::sleep(duration / 10).await;
    let baseline = server.rss_bytes()?;
    let (mut peak, mut end) = (baseline, baseline);
    while start.elapsed() < duration && server.is_running() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        end = server.rss_bytes()?;
        peak = peak.max(end);
    }
    Ok(Some((baseline, peak, end)))
}
