//! Servers that misbehave in every way known. Whatever they do, each event is
//! delivered, pending or counted as lost, callers keep their deadlines, and the
//! client sends few requests and uses little CPU while nothing is accepted. Once
//! the server behaves, all events that it did not refuse are delivered.
//!
//! This is a program of its own, because it measures the CPU of the clients. With
//! optimizations (`cargo test --release`), each may use 1 % of a core; `-- --nocapture`
//! shows the most expensive servers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a panic fails the test")]
#![cfg(target_os = "linux")]

mod server;
mod table;

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use eyego_log_client::{Client, Event, Stats};
use futures_executor::block_on;

use crate::server::Server;
use crate::table::{CASES, Case, Outcome};

/// How long a client has for its first, quick attempts.
const FIRST: Duration = Duration::from_secs(4);

/// How long requests and CPU are then counted.
const COUNTED: Duration = Duration::from_secs(5);

/// Shorter than the pause that a server can ask for.
const SHORT: Duration = Duration::from_millis(500);

/// Long enough for the last attempt of a flush, which is made a second before.
const LONG: Duration = Duration::from_secs(6);

/// A client may use one part in this many of a core while it waits: 1 %. A build that
/// is not optimized does ten times as much.
const CPU_PART: u32 = if cfg!(debug_assertions) { 10 } else { 100 };

/// How much later than its deadline a call returns on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

struct Run {
    case: &'static Case,
    server: Server,
    client: Client,
    /// The id of the client's thread.
    thread: String,
    /// What the client used while nothing was accepted.
    waiting: OnceLock<Waiting>,
}

/// What a client used within [`COUNTED`].
struct Waiting {
    cpu: Duration,
    requests: u64,
}

/// Returns the ids of the clients' threads.
fn client_threads() -> HashSet<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let ids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    ids.filter(|id| {
        let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
        name.is_ok_and(|name| name.trim() == "eyego-log")
    })
    .collect()
}

impl Run {
    fn new(case: &'static Case) -> Self {
        let server = Server::start(case.misbehavior);
        let before = client_threads();
        let client = Client::builder(format!("http://{}", server.address))
            .linger(Duration::from_millis(5))
            // The servers count lines.
            .compression(false)
            .request_timeout(Duration::from_secs(1))
            .on_problem(|_| {})
            .build()
            .unwrap();
        let mut thread = String::new();
        // A thread sets its name itself, after it has started.
        while thread.is_empty() {
            thread = client_threads().difference(&before).next().cloned().unwrap_or_default();
        }
        Self { case, server, client, thread, waiting: OnceLock::new() }
    }

    /// Returns the CPU time of the client's thread.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/self/task/{}/schedstat", self.thread);
        let text = std::fs::read_to_string(path).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    fn log(&self) {
        self.client.log(Event::new("user-123", "CLICK_BUTTON")).unwrap();
    }

    /// Logs an event from time to time.
    fn log_for(&self, duration: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            self.log();
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns everything that is wrong.
    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |holds: bool, violation: String| {
            if !holds {
                found.push(format!("{}: {violation}", self.case.name));
            }
        };
        let outcome = self.case.outcome;
        (0..20).for_each(|_| self.log());
        self.log_for(FIRST);
        let (before, cpu) = (self.client.stats(), self.cpu());
        let (received, begin) = (self.server.requests(), Instant::now());
        self.log_for(COUNTED);
        let (stats, cpu) = (self.client.stats(), self.cpu() - cpu);
        let (seconds, received) = (begin.elapsed().as_secs(), self.server.requests() - received);
        check(stats.is_balanced(), format!("{stats:?}"));
        let fits = match outcome {
            Outcome::Kept => stats.delivered + stats.lost.total() == 0,
            Outcome::Lost => stats.delivered == 0 && stats.lost.total() > 0,
            Outcome::Delivered => stats.delivered > 0 && stats.lost.total() == 0,
        };
        check(fits, format!("not {outcome:?}: {stats:?}"));
        let requests = stats.requests - before.requests;
        if outcome != Outcome::Delivered {
            check(requests <= seconds + 2, format!("{requests} requests in {seconds} s"));
            // A request can be redirected three times.
            let limit = 4 * (usize::try_from(seconds).unwrap() + 2);
            check(received <= limit, format!("{received} requests received in {seconds} s"));
            let limit = begin.elapsed() / CPU_PART;
            check(cpu < limit, format!("{cpu:?} of CPU in {seconds} s"));
            let _ = self.waiting.set(Waiting { cpu, requests });
        }

        let begin = Instant::now();
        let report = block_on(self.client.flush_within(SHORT));
        check(begin.elapsed() < SHORT + SLACK, format!("flushed for {:?}", begin.elapsed()));
        check(report.stats.is_balanced(), format!("{report:?}"));

        self.server.behave();
        let mut report = block_on(self.client.flush_within(LONG));
        // The attempt at the beginning may have met a connection of before.
        if report.stats.pending > 0 {
            report = block_on(self.client.flush_within(LONG));
        }
        let Stats { pending, delivered, lost, .. } = &report.stats;
        check(*pending == 0, format!("not all are settled in the end: {report:?}"));
        let is_complete = outcome == Outcome::Lost || lost.total() == 0;
        check(is_complete && *delivered + lost.total() > 0, format!("lost in the end: {report:?}"));

        let begin = Instant::now();
        let report = block_on(self.client.shutdown_within(SHORT));
        check(begin.elapsed() < SHORT + SLACK, format!("shut down for {:?}", begin.elapsed()));
        check(report.stats.is_balanced(), format!("{report:?}"));
        found
    }
}

/// A client with unsettled events that is shut down at a misbehaving server keeps
/// its deadline, and counts what is lost.
fn shut_down_early(case: &'static Case) -> Vec<String> {
    let server = Server::start(case.misbehavior);
    let url = format!("http://{}", server.address);
    let client = Client::builder(url).on_problem(|_| {}).build().unwrap();
    for _ in 0..20 {
        client.log(Event::new("user-123", "CLICK_BUTTON")).unwrap();
    }
    let begin = Instant::now();
    let stats = block_on(client.shutdown_within(SHORT)).stats;
    let is_settled = stats.is_balanced() && stats.pending == 0 && stats.accepted == 20;
    if is_settled && begin.elapsed() < SHORT + SLACK {
        return Vec::new();
    }
    vec![format!("{}: shut down for {:?}: {stats:?}", case.name, begin.elapsed())]
}

fn print_most_expensive(runs: &[Run]) {
    let mut rows: Vec<_> =
        runs.iter().filter_map(|run| Some((run.case.name, run.waiting.get()?))).collect();
    rows.sort_unstable_by_key(|(_, waiting)| std::cmp::Reverse(waiting.cpu));
    let seconds = COUNTED.as_secs_f64();
    for (name, Waiting { cpu, requests }) in rows.iter().take(10) {
        let percent = cpu.as_secs_f64() / seconds * 100.0;
        println!("{name}: {percent:.2} % of a core, {requests} requests in {seconds} s");
    }
}

#[test]
fn every_event_is_accounted_for_whatever_a_server_does() {
    let runs: Vec<_> = CASES.iter().map(Run::new).collect();
    let violations: Vec<String> = std::thread::scope(|scope| {
        let early = CASES.iter().map(|case| scope.spawn(|| shut_down_early(case)));
        let early: Vec<_> = early.collect();
        let runs = runs.iter().map(|run| scope.spawn(|| run.violations()));
        let threads: Vec<_> = early.into_iter().chain(runs).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    print_most_expensive(&runs);
    assert!(violations.is_empty(), "{} servers:\n{}", CASES.len(), violations.join("\n"));
}
