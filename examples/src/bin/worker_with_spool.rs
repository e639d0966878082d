//! A worker whose events outlive it: one works while the server is away and
//! crashes, the next one delivers what it left, and goes on.

#![expect(clippy::print_stdout, reason = "a program for people")]

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
    // A service keeps its directory, where its next process looks for it.
    std::fs::remove_dir_all(&dir)?;
    result
}

/// What a service does at its start: the same directory each time.
fn client(builder: ClientBuilder, dir: &Path) -> Result<Client> {
    // What waits for its batch is in memory alone: not for long.
    let builder = builder.linger(Duration::from_millis(50));
    Ok(builder.spool_dir(dir).spool_max_bytes(64 << 20).build()?)
}

async fn run(dir: &Path) -> Result<()> {
    let crashed = Command::new(std::env::current_exe()?).arg(dir).status()?;
    ensure!(!crashed.success(), "it was to crash");

    let client = client(ClientBuilder::from_env()?, dir)?;
    let found = client.stats().recovered;
    println!("the worker before left {found} events");
    ensure!(found == JOBS);
    client.log(Event::new("worker", "STARTED"))?;

    let report = client.shutdown().await;
    println!("delivered {}", report.stats.delivered);
    ensure!(report.all_settled() && report.stats.delivered == JOBS + 1, "{report:?}");
    Ok(())
}

/// Works, with nobody there to take the events, and dies without a goodbye.
async fn work_and_crash(dir: &Path) -> Result<()> {
    let client = client(Client::builder("http://127.0.0.1:1").on_problem(|_| {}), dir)?;
    for number in 0..JOBS {
        client.log(Event::new("worker", "JOB_DONE").metadata(Job { number }))?;
    }
    let mut size = client.stats().spool_bytes;
    // The files have grown to their end when they no longer grow.
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = client.stats().spool_bytes;
        if now == size {
            break;
        }
        size = now;
    }
    ensure!(size > 0, "nothing reached {}", dir.display());
    std::process::abort()
}
