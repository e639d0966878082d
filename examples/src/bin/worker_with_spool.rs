//! A worker whose events survive a crash. The first process works while the
//! server is unreachable and crashes. The next one delivers the events that the
//! first one left in the spool.

#![expect(clippy::print_stdout, reason = "prints for its user")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use eyego_log_client::{Client, ClientBuilder, Event};
use serde::Serialize;

const JOBS: u64 = 1000;

#[derive(Serialize)]
struct Job {
    number: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if let Some(dir) = arguments.next() {
        return work_and_crash(&PathBuf::from(dir)).await;
    }
    let dir = std::env::temp_dir().join(format!("eyego-log-worker-{}", std::process::id()));
    let result = run(&dir).await;
    // A real service keeps its directory for the next process.
    std::fs::remove_dir_all(&dir)?;
    result
}

/// Builds the client. A service uses the same directory at each start.
fn client(builder: ClientBuilder, dir: &Path) -> Result<Client> {
    // Lingering events are only in memory, so they should not linger for long.
    let builder = builder.linger(Duration::from_millis(50));
    Ok(builder.spool_dir(dir).spool_max_bytes(64 << 20).build()?)
}

async fn run(dir: &Path) -> Result<()> {
    let crashed = Command::new(std::env::current_exe()?).arg(dir).status()?;
    ensure!(!crashed.success(), "the first process should have crashed");

    let client = client(ClientBuilder::from_env()?, dir)?;
    let recovered = client.stats().recovered;
    println!("recovered {recovered} events from the spool");
    ensure!(recovered == JOBS, "expected {JOBS} events");
    client.log(Event::new("worker", "STARTED"))?;

    let report = client.shutdown().await;
    println!("delivered {}", report.stats.delivered);
    ensure!(report.all_delivered() && report.stats.delivered == JOBS + 1, "{report:?}");
    Ok(())
}

/// Logs events while the server is unreachable, and crashes.
async fn work_and_crash(dir: &Path) -> Result<()> {
    let client = client(Client::builder("http://127.0.0.1:1").on_problem(|_| {}), dir)?;
    for number in 0..JOBS {
        client.log(Event::new("worker", "JOB_DONE").metadata(Job { number }))?;
    }
    let mut size = client.stats().spool_bytes;
    // All events are in the spool when its size no longer changes.
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = client.stats().spool_bytes;
        if now == size {
            break;
        }
        size = now;
    }
    ensure!(size > 0, "nothing was written to {}", dir.display());
    std::process::abort()
}
