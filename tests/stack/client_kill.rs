//! A program that logs with the SDK from eight threads while the server is killed: each event is stored
//! exactly once or counted as lost, and the memory of the program stays within the buffer and 30 MiB.
//!
//! The program is a process of its own, so that its memory can be measured. The caller provides it: it runs
//! [`log_and_report`] if [`PROGRAM`] is set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eyego_log_client::{Client, Event, LogId, Overflow};
use serde::{Deserialize, Serialize};

use crate::scratch::Scratch;
use crate::server::Server;
use crate::{eventually, eventually_blocking};

mod stored;

/// Set for the program that logs: its task as JSON.
pub const PROGRAM: &str = "EYEGO_TEST_CLIENT_KILL";

/// How much more memory than its buffer the program may use.
pub const MARGIN_MIB: u64 = 30;

const THREADS: u32 = 8;

/// The server is away for this long after it was killed.
const AWAY: Duration = Duration::from_secs(2);

/// What happens when the program's buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// The threads wait.
    Block,
    /// The new event is lost.
    DropNewest,
    /// The oldest event is lost.
    DropOldest,
}

/// A run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What happens when the buffer is full.
    pub policy: Policy,
    /// Number of events that the program logs.
    pub events: u32,
    /// Size of the program's buffer.
    pub buffer_mib: u64,
    /// Maximum time for each step.
    pub timeout: Duration,
}

/// What became of the events.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What the program counted.
    pub counted: Counted,
    /// Number of different events in the store.
    pub stored: u64,
}

/// What the program reports at its end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Counted {
    /// Events that the client accepted.
    pub accepted: u64,
    /// Events that the server acknowledged.
    pub delivered: u64,
    /// Events that are neither delivered nor lost.
    pub pending: u64,
    /// Events that are lost.
    pub lost: u64,
    /// Requests that failed.
    pub failed_requests: u64,
    /// Peak of the resident memory, in KiB.
    pub peak_kib: u64,
}

#[derive(Serialize, Deserialize)]
struct Task {
    url: String,
    policy: Policy,
    events: u32,
    buffer_mib: u64,
    timeout: Duration,
    /// Created when half of the events are logged.
    half: PathBuf,
    /// Where the counts are written.
    result: PathBuf,
}

/// Runs `program`, and kills and restarts the server once half of the events are logged. The store is
/// expected to be empty.
///
/// # Errors
/// Returns an error if the program or the server fails, or if an event is neither stored exactly once nor
/// counted as lost, or if the program uses too much memory.
pub async fn run(server: &Server, mut program: Command, run: Run) -> Result<Outcome> {
    let Run { policy, events, buffer_mib, timeout } = run;
    let scratch = Scratch::new("client-kill")?;
    let (half, result) = (scratch.path().join("half"), scratch.path().join("result"));
    let url = server.base_url();
    let (half_path, result_path) = (half.clone(), result.clone());
    let task =
        Task { url, policy, events, buffer_mib, timeout, half: half_path, result: result_path };
    let mut program = program.env(PROGRAM, serde_json::to_string(&task)?).spawn()?;
    eventually("half of the events to be logged", timeout, async || {
        ensure!(half.exists(), "the program has begun");
        Ok(())
    })
    .await?;
    server.kill()?;
    tokio::time::sleep(AWAY).await;
    server.restart().await?;
    let status = tokio::task::spawn_blocking(move || {
        eventually_blocking("the program to end", timeout, || {
            program.try_wait()?.context("it is still running")
        })
    });
    let status = status.await??;
    ensure!(status.success(), "the program failed: {status}");
    let counted: Counted = serde_json::from_slice(&std::fs::read(&result)?)?;
    let stored =
        stored::wait_and_count(&server.base_url(), counted.delivered, events, timeout).await?;
    let outcome = Outcome { counted, stored };
    check(run, outcome).with_context(|| format!("{run:?}: {outcome:?}"))?;
    Ok(outcome)
}

fn check(run: Run, outcome: Outcome) -> Result<()> {
    let Outcome { counted, stored } = outcome;
    let Counted { accepted, delivered, pending, lost, failed_requests, peak_kib } = counted;
    ensure!(accepted == u64::from(run.events), "not all events were accepted");
    ensure!(pending == 0 && accepted == delivered + lost, "the counts do not balance");
    // A request whose response the kill has cut off may be stored although it is counted as lost.
    ensure!(
        (delivered..=accepted).contains(&stored),
        "an event is neither stored nor counted as lost"
    );
    ensure!(run.policy != Policy::Block || lost == 0, "there was room in time");
    ensure!(failed_requests > 0, "the program did not notice that the server was killed");
    ensure!(peak_kib <= (run.buffer_mib + MARGIN_MIB) * 1024, "too much memory");
    Ok(())
}

#[derive(Serialize)]
struct Metadata {
    page: &'static str,
    browser: &'static str,
    width: u32,
    ratio: f64,
    referrer: &'static str,
}

/// Runs the task of the program if there is one. Returns whether there was one.
///
/// # Errors
/// Returns an error if the client cannot be built or the counts cannot be written.
pub fn log_and_report() -> Result<bool> {
    let Ok(task) = std::env::var(PROGRAM) else { return Ok(false) };
    let task: Task = serde_json::from_str(&task)?;
    let overflow = match task.policy {
        Policy::Block => Overflow::Block(task.timeout),
        Policy::DropNewest => Overflow::DropNewest,
        Policy::DropOldest => Overflow::DropOldest,
    };
    let client = Client::builder(&task.url)
        .max_buffer_bytes(usize::try_from(task.buffer_mib << 20)?)
        .overflow(overflow)
        .delivery_timeout(task.timeout)
        .on_problem(|_| {})
        .build()?;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, task) = (&client, &task);
            scope.spawn(move || log_share(client, task, thread));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let stats = runtime.block_on(client.flush_within(task.timeout)).stats;
    let counted = Counted {
        accepted: stats.accepted,
        delivered: stats.delivered,
        pending: stats.pending,
        lost: stats.lost.total(),
        failed_requests: stats.failed_requests,
        peak_kib: peak_kib()?,
    };
    std::fs::write(&task.result, serde_json::to_vec(&counted)?)?;
    Ok(true)
}

/// Logs every eighth event, beginning with the number of the thread.
fn log_share(client: &Client, task: &Task, thread: u32) {
    for n in (thread..task.events).step_by(THREADS as usize) {
        let metadata = Metadata {
            page: "home",
            browser: "chrome",
            width: 1920,
            ratio: 0.75,
            referrer: "https://example.com/a/b",
        };
        let event = Event::new("user-123", "CLICK_BUTTON").id(id(n)).metadata(metadata);
        // The client counts what is lost.
        drop(client.log(event));
        if thread == 0 && n / THREADS == task.events / THREADS / 2 {
            // Without the file, the run times out.
            let _ = std::fs::write(&task.half, "");
        }
    }
}

/// Returns the id of event `n`.
fn id(n: u32) -> LogId {
    let mut id = [0x69; 12];
    id[8..].copy_from_slice(&n.to_be_bytes());
    LogId::from_bytes(id)
}

fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
