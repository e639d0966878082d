//! The CPU cost of the client: of a call to `log`, with several threads, of
//! encoding, and of the whole way to a server that only counts events. Each is
//! compared with a baseline in the same run.
//!
//! `cargo bench -p eyego-log-client [-- enqueue|contention|encode|delivery]`. Add
//! `--features spool` to include the spool.
//!
//! All times are CPU times of the calling threads or of this process, because
//! other load on the machine affects them little. The counting server is a
//! separate process.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::exit,
    reason = "a benchmark prints its results and stops if something is wrong"
)]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "spool")]
use eyego_log_client::SpoolSync;
use eyego_log_client::transport::http;
use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
use eyego_log_client::{Client, Event, Overflow};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::sync::Semaphore;

const COUNTING_SERVER: &str = "EYEGO_BENCH_COUNTING_SERVER";

/// Metadata with five fields that need no allocation.
#[derive(Serialize, Clone, Copy)]
struct Metadata {
    page: &'static str,
    browser: &'static str,
    width: u32,
    ratio: f64,
    referrer: &'static str,
}

const METADATA: Metadata = Metadata {
    page: "home",
    browser: "chrome",
    width: 1920,
    ratio: 0.75,
    referrer: "https://example.com/a/b",
};

/// The same event, to be serialized by `serde_json` alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plain<'a> {
    id: &'a str,
    timestamp: &'a str,
    user_id: &'a str,
    action: &'a str,
    metadata: Metadata,
}

const PLAIN: Plain<'static> = Plain {
    id: "69682d8d81847b87ab93264b",
    timestamp: "2026-01-14T23:58:05.442Z",
    user_id: "user-123",
    action: "CLICK_BUTTON",
    metadata: METADATA,
};

fn event() -> Event<'static, Metadata> {
    Event::new("user-123", "CLICK_BUTTON").metadata(METADATA)
}

fn main() {
    if std::env::var_os(COUNTING_SERVER).is_some() {
        return count_forever();
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if is_wanted("enqueue") {
        enqueue();
    }
    if is_wanted("contention") {
        contention();
    }
    if is_wanted("encode") {
        encode();
    }
    if is_wanted("delivery") {
        delivery();
    }
}

/// Accepts all events once its gate is open.
struct Counting {
    gate: Arc<Semaphore>,
}

impl Transport for Counting {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let count = request.body().iter().filter(|byte| **byte == b'\n').count();
        Box::pin(async move {
            // A closed semaphore is an open gate.
            let _ = self.gate.acquire().await;
            let mut response =
                Response::new(format!(r#"{{"accepted":{count},"rejected":[]}}"#).into());
            *response.status_mut() = http::StatusCode::ACCEPTED;
            Ok(response)
        })
    }
}

fn counting_client(gate: Arc<Semaphore>) -> Client {
    Client::builder("http://nowhere")
        .transport(Counting { gate })
        .compression(false)
        .overflow(Overflow::Block(Duration::from_secs(10)))
        .build()
        .unwrap()
}

/// Measures a call to `log` on one thread. Rounds of both variants alternate, and
/// each round's events are delivered before the next, because a large backlog
/// would measure memory bandwidth.
fn enqueue() {
    const EVENTS: u32 = 100_000;
    const ROUNDS: usize = 40;

    let gate = Arc::new(Semaphore::new(0));
    let client = counting_client(Arc::clone(&gate));
    // Buffers a whole round, so that no later round allocates.
    (0..EVENTS).for_each(|_| assert!(client.log(event()).is_ok()));
    gate.close();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut line = Vec::with_capacity(1024);
    assert!(runtime.block_on(client.flush()).all_delivered());
    let (mut plain, mut logged) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let mut walls = Vec::with_capacity(ROUNDS);
    let mut allocations = 0;
    let per_event = |run: &mut dyn FnMut()| {
        let before = thread_cpu();
        run();
        (thread_cpu() - before).as_nanos() as f64 / f64::from(EVENTS)
    };
    for _ in 0..ROUNDS {
        plain.push(per_event(&mut || {
            for _ in 0..EVENTS {
                line.clear();
                serde_json::to_writer(&mut line, black_box(&PLAIN)).unwrap();
                black_box(&line);
            }
        }));
        let counted = allocation_counter::measure(|| {
            let begin = Instant::now();
            let cost = per_event(&mut || {
                (0..EVENTS).for_each(|_| assert!(client.log(black_box(event())).is_ok()));
            });
            walls.push(begin.elapsed() / EVENTS);
            logged.push(cost);
        });
        allocations += counted.count_total;
        assert!(runtime.block_on(client.flush()).all_delivered());
    }
    let clock = per_event(&mut || {
        for _ in 0..EVENTS {
            black_box(std::time::SystemTime::now());
        }
    });
    walls.sort_unstable();
    let (plain, logged) = (median(plain), median(logged));
    println!(
        "enqueue: {logged:.0} ns of CPU per event, {:.2} times serde_json alone ({plain:.0} ns); \
         reading the clock {clock:.0} ns; median wall time {:?}; {} allocations in {} events",
        logged / plain,
        walls[walls.len() / 2],
        allocations,
        EVENTS as usize * ROUNDS,
    );
    assert!(client.stats().is_balanced());
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Measures `log` with several threads that share a client.
fn contention() {
    const EVENTS: u32 = 2_000_000;

    for threads in [1, 2, 4, 8] {
        let gate = Arc::new(Semaphore::new(0));
        gate.close();
        let client = counting_client(gate);
        let run = |events: u32| {
            let begin = Instant::now();
            let cpu: Duration = std::thread::scope(|scope| {
                let spawned: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            let before = thread_cpu();
                            (0..events / threads).for_each(|_| drop(client.log(event())));
                            thread_cpu() - before
                        })
                    })
                    .collect();
                spawned.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            (cpu, begin.elapsed())
        };
        run(EVENTS / 4);
        let (cpu, wall) = run(EVENTS);
        println!(
            "contention, {threads} threads: {:.0} ns of CPU per event, {:.2} million events/s",
            cpu.as_nanos() as f64 / f64::from(EVENTS),
            f64::from(EVENTS) / wall.as_secs_f64() / 1e6,
        );
    }
}

/// Measures serializing and compressing batches of 500 events, without a client.
fn encode() {
    const BATCHES: u32 = 2000;

    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let (mut batch, mut compressed) = (Vec::new(), Vec::with_capacity(1 << 20));
    let begin = thread_cpu();
    for _ in 0..BATCHES {
        batch.clear();
        for n in 0..500 {
            line(n, &mut batch);
        }
    }
    let written = thread_cpu();
    for _ in 0..BATCHES {
        compressed.clear();
        compressor.compress_to_buffer(&batch, &mut compressed).unwrap();
    }
    let done = thread_cpu();
    println!(
        "encode: serde_json {:.2} CPU-s/M, zstd-1 {:.2} CPU-s/M (a batch of {} bytes is compressed to {})",
        (written - begin).as_secs_f64(),
        (done - written).as_secs_f64(),
        batch.len(),
        compressed.len(),
    );
}

fn line(n: u32, out: &mut Vec<u8>) {
    let timestamp = format!("2026-01-14T23:58:05.{:03}Z", n % 1000);
    let id = format!("69682d8d81847b87ab{n:06x}");
    let user = USERS[n as usize % USERS.len()];
    let event = Plain { id: &id, timestamp: &timestamp, user_id: user, ..PLAIN };
    serde_json::to_writer(&mut *out, &event).unwrap();
    out.push(b'\n');
}

/// Measures the whole way to a counting server, compared with raw requests that
/// have the same bodies.
fn delivery() {
    const EVENTS: u32 = 2_000_000;

    let mut server = Command::new(std::env::current_exe().unwrap())
        .env(COUNTING_SERVER, "1")
        // The server exits when this pipe closes, even if the benchmark panics.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let url = url.trim();

    let builder = || Client::builder(url).overflow(Overflow::Block(Duration::from_secs(10)));
    #[cfg(feature = "spool")]
    let dir = tempfile::tempdir().unwrap();
    let clients = [
        ("zstd", builder().compression(true)),
        ("identity", builder().compression(false)),
        #[cfg(feature = "spool")]
        ("zstd, spool synced each second", builder().spool_dir(dir.path().join("1"))),
        #[cfg(feature = "spool")]
        (
            "zstd, spool synced with each batch",
            builder().spool_dir(dir.path().join("2")).spool_sync(SpoolSync::EachBatch),
        ),
    ];
    for (name, builder) in clients {
        let client = builder.build().unwrap();
        let run = |events: u32| {
            for n in 0..events {
                let user = USERS[n as usize % USERS.len()];
                let event = Event::new(user, "CLICK_BUTTON").metadata(METADATA);
                client.log(event).unwrap();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert!(runtime.block_on(client.flush_within(Duration::from_secs(60))).all_delivered());
        };
        run(EVENTS / 4);
        let (before, begin) = (process_cpu(), Instant::now());
        run(EVENTS);
        let (cpu, wall) = (process_cpu() - before, begin.elapsed());
        let stats = client.stats();
        assert_eq!(stats.delivered, u64::from(EVENTS + EVENTS / 4));
        println!(
            "delivery, {name}: {:.2} CPU-s per million events, {:.2} million events/s",
            cpu / f64::from(EVENTS) * 1e6,
            f64::from(EVENTS) / wall.as_secs_f64() / 1e6,
        );
    }
    raw_requests(url);
    server.kill().unwrap();
    server.wait().unwrap();
}

const USERS: [&str; 7] = ["ada", "grace", "barbara", "frances", "jean", "kathleen", "margaret"];

/// Measures the baseline: prepared bodies, posted one after the other.
fn raw_requests(url: &str) {
    const REQUESTS: u32 = 4000;

    let mut batch = Vec::new();
    (0..500).for_each(|n| line(n, &mut batch));
    let body = zstd::bulk::compress(&batch, 1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cpu = runtime.block_on(async {
        let client = reqwest::Client::builder().build().unwrap();
        let before = process_cpu();
        for _ in 0..REQUESTS {
            let request = client.post(url).header("content-encoding", "zstd").body(body.clone());
            let response = request.send().await.unwrap();
            black_box(response.bytes().await.unwrap());
        }
        process_cpu() - before
    });
    let events = f64::from(REQUESTS) * 500.0;
    println!(
        "delivery, reqwest with prepared bodies: {:.2} CPU-s per million events",
        cpu / events * 1e6
    );
}

/// Runs the counting server: prints its URL and accepts every batch.
fn count_forever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    for connection in listener.incoming() {
        let connection = connection.unwrap();
        std::thread::spawn(move || serve(&connection));
    }
}

fn serve(connection: &TcpStream) {
    connection.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(connection);
    let mut body = Vec::new();
    loop {
        let (mut length, mut is_compressed) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("content-encoding", _)) => is_compressed = true,
                _ if header.is_empty() => break,
                _ => {}
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).unwrap();
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let count =
            if is_compressed { lines(&zstd::decode_all(&body[..]).unwrap()) } else { lines(&body) };
        let body = format!(r#"{{"accepted":{count},"rejected":[]}}"#);
        let head = "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: ";
        let response = format!("{head}{}\r\n\r\n{body}", body.len());
        let mut connection = connection;
        connection.write_all(response.as_bytes()).unwrap();
    }
}

/// Returns the CPU time that this thread has used.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Returns the CPU seconds that this process has used, user and system.
fn process_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
