//! The memory of the process while a backlog fills the buffer and drains. Each
//! case runs in a process of its own, because memory is a matter of the whole
//! process.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
use eyego_log_client::{Client, Event, LogError, Overflow};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::server::accept;

const MIB: usize = 1 << 20;

/// What the client may use in addition to its buffer. Together with the code of
/// a small program that is 30 MiB.
const MARGIN: usize = 20 * MIB;

const BUFFER_VARIABLE: &str = "EYEGO_TEST_BUFFER_MIB";
const OVERFLOW_VARIABLE: &str = "EYEGO_TEST_OVERFLOW";
const BATCH_VARIABLE: &str = "EYEGO_TEST_BATCH_EVENTS";

/// Accepts all events while its gate is open.
struct Gated(Arc<Semaphore>);

impl Transport for Gated {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let response = accept(&request);
        Box::pin(async move {
            let _permit = self.0.acquire().await;
            Ok(response)
        })
    }
}

/// Returns a figure of `/proc/self/status` in bytes.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

/// Logs until the buffer is full, and then some more.
fn fill(client: &Client, buffer: usize, text: &str) {
    let event = || Event::new("user-123", "CLICK_BUTTON").metadata(Text { text });
    let mut bytes = 0;
    while bytes < buffer + buffer / 4 {
        bytes += 150 + text.len();
        match client.log(event()) {
            Ok(_) | Err(LogError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(client.stats().pending_bytes > buffer - buffer / 16, "the buffer is full");
}

#[test]
#[ignore = "run as a child by the tests below"]
fn child_that_fills_and_drains() {
    let variable = |name| std::env::var(name).unwrap();
    let buffer = variable(BUFFER_VARIABLE).parse::<usize>().unwrap() * MIB;
    let overflow = match &*variable(OVERFLOW_VARIABLE) {
        "drop-oldest" => Overflow::DropOldest,
        "block" => Overflow::Block(Duration::ZERO),
        _ => Overflow::DropNewest,
    };
    let gate = Arc::new(Semaphore::new(0));
    let client = Client::builder("http://gated")
        .transport(Gated(Arc::clone(&gate)))
        .compression(false)
        .request_timeout(Duration::from_secs(300))
        .max_batch_events(variable(BATCH_VARIABLE).parse().unwrap())
        .max_buffer_bytes(buffer)
        .overflow(overflow)
        .build()
        .unwrap();
    let before = status("RssAnon");
    // Events of different sizes leave gaps if memory is not managed.
    for length in [300, 240, 2000, 300, 8000] {
        fill(&client, buffer, &"x".repeat(length));
        gate.add_permits(64);
        let report = futures_executor::block_on(client.flush_within(Duration::from_secs(120)));
        assert!(report.is_settled() && report.stats.is_balanced(), "{report:?}");
        futures_executor::block_on(gate.acquire_many(64)).unwrap().forget();
        // Not the pages of this program's own file. They depend on the number of its
        // tests and on what the operating system has in its cache.
        let peak = status("VmHWM") - status("RssFile");
        assert!(peak <= buffer + MARGIN, "{} MiB after events of {length} bytes", peak / MIB);
    }
    let drained_at = Instant::now();
    let limit = before + 16 * MIB;
    while status("RssAnon") > limit {
        let elapsed = drained_at.elapsed();
        assert!(elapsed < Duration::from_secs(10), "{} MiB remain", status("RssAnon") / MIB);
        std::thread::sleep(Duration::from_millis(100));
    }
    let peak = status("VmHWM") - status("RssFile");
    println!("peak {} MiB, at rest {} MiB", peak / MIB, status("RssAnon") / MIB);
}

#[track_caller]
#[expect(clippy::print_stdout, reason = "the figures are of interest")]
fn assert_memory_is_bounded(buffer_mib: usize, batch_events: usize) {
    for overflow in ["drop-newest", "drop-oldest", "block"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "memory::child_that_fills_and_drains", "--nocapture"])
            .env(BUFFER_VARIABLE, buffer_mib.to_string())
            .env(OVERFLOW_VARIABLE, overflow)
            .env(BATCH_VARIABLE, batch_events.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{overflow}, {buffer_mib} MiB: {text}{errors}");
        assert!(text.contains("at rest"), "the child ran: {text}");
        println!("{overflow}, {buffer_mib} MiB: {text}");
    }
}

#[test]
fn a_small_buffer_bounds_the_memory_of_the_process() {
    assert_memory_is_bounded(32, 500);
}

#[test]
fn a_large_buffer_bounds_the_memory_of_the_process() {
    assert_memory_is_bounded(256, 500);
}

#[test]
fn small_batches_bound_the_memory_of_the_process() {
    assert_memory_is_bounded(64, 20);
}
