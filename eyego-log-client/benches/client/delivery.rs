//! The whole way to a counting server, which is a process of its own.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[cfg(feature = "spool")]
use eyego_log_client::SpoolSync;
use eyego_log_client::{Client, Event, Overflow};

use crate::clocks::process_cpu;
use crate::encode::line;
use crate::events::METADATA;
use crate::server::COUNTING_SERVER;

/// Measures the whole way to a counting server, compared with raw requests that
/// have the same bodies.
pub(crate) fn delivery() {
    const EVENTS: u32 = 2_000_000;

    let mut server = Command::new(std::env::current_exe().unwrap())
        .env(COUNTING_SERVER, "127.0.0.1:0")
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

pub(crate) const USERS: [&str; 7] =
    ["ada", "grace", "barbara", "frances", "jean", "kathleen", "margaret"];

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
