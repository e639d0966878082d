//! Compares eyego-log-client with the SDKs of OpenTelemetry, PostHog and Sentry: what logging an event
//! with five metadata fields costs the calling thread, and the whole way to a local server that counts
//! events.
//!
//! Each SDK runs in a process of its own, and so does the server. The runs of the SDKs alternate; the
//! table shows medians.

#![forbid(unsafe_code)]

mod sdks;
mod server;

use std::process::Command;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::sdks::{SDKS, Sdk};
use crate::server::Server;

/// Events between two flushes while calls are measured. They fit into the smallest default queue, which
/// is OpenTelemetry's (2,048).
const ROUND: u32 = 2_000;
const ROUNDS: u32 = 150;

/// Events of the whole way. The queues have room for all of them.
const EVENTS: u32 = 300_000;

/// Runs of each SDK.
const RUNS: usize = 3;

/// What is measured, in the order in which `measure` prints it.
const COLUMNS: [(&str, usize); 5] = [
    ("call, CPU (ns)", 0),
    ("call, wall (ns)", 0),
    ("whole way, CPU of the process (µs per event)", 2),
    ("whole way, wall (µs per event)", 2),
    ("sent (bytes per event)", 0),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => server::serve(),
        ["measure", name] => measure(name),
        wanted => compare(wanted),
    }
}

fn compare(wanted: &[&str]) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.contains(&name);
    let names: Vec<_> = SDKS.iter().map(|(name, _)| *name).filter(|name| is_wanted(name)).collect();
    let mut runs = vec![Vec::new(); names.len()];
    for _ in 0..RUNS {
        for (name, runs) in names.iter().zip(&mut runs) {
            runs.push(run(name));
        }
    }
    println!("| SDK | {} |", COLUMNS.map(|(column, _)| column).join(" | "));
    println!("|---|{}", "---|".repeat(COLUMNS.len()));
    let mut first = None;
    for (name, runs) in names.iter().zip(&runs) {
        let figures: Vec<f64> = (0..COLUMNS.len())
            .map(|column| median(runs.iter().map(|run| run[column]).collect()))
            .collect();
        let first = first.get_or_insert_with(|| figures.clone());
        let cells = COLUMNS.iter().enumerate().map(|(n, (_, digits))| {
            format!("{:.digits$} ({:.1} ×)", figures[n], figures[n] / first[n])
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// Measures an SDK in a process of its own.
fn run(name: &str) -> Vec<f64> {
    let output = this_program(&["measure", name]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}{errors}");
    eprintln!("{name}: {text}{errors}");
    text.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
}

fn this_program(arguments: &[&str]) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(arguments);
    program
}

fn measure(name: &str) {
    let (_, start) = SDKS.iter().find(|(other, _)| *other == name).expect("no such SDK");
    let mut server = Server::start(this_program(&["serve"]));
    let Sdk { log, flush } = start(&server.url);

    let (mut cpu_of_calls, mut wall_of_calls) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (begin, before) = (Instant::now(), seconds(ClockId::ThreadCPUTime));
        (0..ROUND).for_each(&log);
        let cpu = seconds(ClockId::ThreadCPUTime) - before;
        cpu_of_calls.push(cpu / f64::from(ROUND));
        wall_of_calls.push(begin.elapsed().as_secs_f64() / f64::from(ROUND));
        flush();
    }
    let (delivered, bytes_before) = server.count();
    assert_eq!(delivered, u64::from(ROUND * ROUNDS), "{name} lost events");

    let (begin, before) = (Instant::now(), seconds(ClockId::ProcessCPUTime));
    (0..EVENTS).for_each(&log);
    flush();
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), seconds(ClockId::ProcessCPUTime) - before);
    let (delivered, bytes) = server.count();
    assert_eq!(delivered, u64::from(ROUND * ROUNDS + EVENTS), "{name} lost events");

    let events = f64::from(EVENTS);
    println!(
        "{} {} {} {} {}",
        median(cpu_of_calls) * 1e9,
        median(wall_of_calls) * 1e9,
        cpu / events * 1e6,
        wall / events * 1e6,
        (bytes - bytes_before) as f64 / events,
    );
    drop(server);
    // The other threads of an SDK do not have to end.
    std::process::exit(0);
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
