//! Eight threads log while the server is killed and started again. Each
//! event must be stored, or counted as lost, and the memory of the program stays
//! within the buffer and 30 MiB.
//!
//! `cargo bench -p eyego-log-client --bench client -- kill [EVENTS]`. The program
//! that logs and the server are processes of their own. The server stores events
//! in a file before it accepts them, and like the real one it accepts an event
//! again that it has stored.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eyego_log_client::{Client, Event, LogId, Overflow};

use crate::events::METADATA;
use crate::server::{COUNTING_SERVER, STORED};

/// Set for the process that logs: the URL, the policy and the number of events.
pub(crate) const LOGGING: &str = "EYEGO_BENCH_LOGGING";

const THREADS: u32 = 8;
const BUFFER_MIB: usize = 256;

/// Runs it with each overflow policy.
pub(crate) fn kill(events: u32) {
    for policy in ["block", "drop-newest", "drop-oldest"] {
        run(policy, events / THREADS * THREADS);
    }
}

fn run(policy: &str, events: u32) {
    let dir = tempfile::tempdir().unwrap();
    let stored = dir.path().join("stored");
    std::fs::write(&stored, b"").unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut server = start_server(&address, &stored);
    let mut program = Command::new(std::env::current_exe().unwrap())
        .env(LOGGING, format!("http://{address} {policy} {events}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while count_stored(&stored) < u64::from(events) / 4 {
        assert!(program.try_wait().unwrap().is_none(), "the program ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let mut server = start_server(&address, &stored);

    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(program.wait().unwrap().success());
    server.kill().unwrap();
    server.wait().unwrap();
    let figures: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [accepted, delivered, pending, lost, peak] = figures[..] else { panic!("{line}") };
    let (unique, repeated) = unique_stored(&stored, events);
    println!(
        "kill, {policy}: {accepted} events = {delivered} delivered + {pending} pending + {lost} \
         lost; {unique} stored, {repeated} of them sent twice; peak memory {} MiB with a buffer \
         of {BUFFER_MIB} MiB",
        peak / 1024,
    );
    assert_eq!((accepted, pending), (u64::from(events), 0));
    assert_eq!(accepted, delivered + lost);
    assert!(unique >= delivered, "a delivered event is not stored");
    assert!(policy != "block" || lost == 0, "there was room in time");
    assert!(peak <= (BUFFER_MIB as u64 + 30) * 1024, "too much memory");
}

fn start_server(address: &str, stored: &Path) -> Child {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .env(COUNTING_SERVER, address)
        .env(STORED, stored)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    server
}

/// Returns the number of stored events, including those stored twice.
fn count_stored(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len() / 4
}

/// Returns the number of different events in the file, and of repetitions.
fn unique_stored(path: &Path, events: u32) -> (u64, u64) {
    let bytes = std::fs::read(path).unwrap();
    let (numbers, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    let mut seen = vec![false; events as usize];
    let mut unique = 0;
    for number in numbers {
        let number = u32::from_le_bytes(*number) as usize;
        unique += u64::from(!std::mem::replace(&mut seen[number], true));
    }
    (unique, numbers.len() as u64 - unique)
}

/// Runs the process that logs. Prints its counts and its peak memory in KiB.
pub(crate) fn log_and_report(arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let [url, policy, events] = words[..] else { panic!("{arguments}") };
    let events: u32 = events.parse().unwrap();
    let overflow = match policy {
        "drop-newest" => Overflow::DropNewest,
        "drop-oldest" => Overflow::DropOldest,
        _ => Overflow::Block(Duration::from_secs(120)),
    };
    let builder = Client::builder(url).max_buffer_bytes(BUFFER_MIB << 20).overflow(overflow);
    let client = builder.on_problem(|_| {}).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                for n in (thread..events).step_by(THREADS as usize) {
                    let mut id = [0x69; 12];
                    id[8..].copy_from_slice(&n.to_be_bytes());
                    let event = Event::new("user-123", "CLICK_BUTTON").id(LogId::from_bytes(id));
                    // The client counts what is lost.
                    drop(client.log(event.metadata(METADATA)));
                }
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let stats = runtime.block_on(client.flush_within(Duration::from_secs(120))).stats;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.trim().trim_end_matches(" kB");
    let lost = stats.lost.total();
    println!("{} {} {} {lost} {peak}", stats.accepted, stats.delivered, stats.pending);
}
