//! A program without async: it logs, flushes, reads back and ends.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use eyego_log_client::{Client, Event, blocking};
use serde_json::json;

fn main() -> Result<()> {
    let client = Client::from_env()?;
    for n in 0..10 {
        client.log(Event::new("batch-job", "STEP").metadata(json!({"n": n})))?;
    }
    let id = blocking::wait(client.send(Event::new("batch-job", "DONE")))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while blocking::wait(client.query().get(id))?.is_none() {
        ensure!(Instant::now() < deadline, "the log {id} is not stored yet");
        std::thread::sleep(Duration::from_millis(50));
    }
    for log in blocking::Client::from(client.clone()).query().user("batch-job").iter().take(11) {
        let log = log?;
        println!("{} {}", log.action, log.metadata.as_json());
    }
    let report = blocking::wait(client.shutdown());
    ensure!(report.stats.delivered == 11, "{report:?}");
    Ok(())
}
