//! A program without async that logs, flushes, reads events back and shuts down.

#![expect(clippy::print_stdout, reason = "prints for its user")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use eyego_log_client::{Event, blocking};
use serde_json::json;

fn main() -> Result<()> {
    let client = blocking::Client::from_env()?;
    for n in 0..10 {
        client.log(Event::new("batch-job", "STEP").metadata(json!({"n": n})))?;
    }
    let id = client.send(Event::new("batch-job", "DONE"))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.query().get(id)?.is_none() {
        ensure!(Instant::now() < deadline, "event {id} was not stored in time");
        std::thread::sleep(Duration::from_millis(50));
    }
    for entry in client.query().user("batch-job").iter().take(11) {
        let entry = entry?;
        println!("{} {}", entry.action, entry.metadata.as_json());
    }
    let report = client.shutdown();
    ensure!(report.stats.delivered == 11, "{report:?}");
    Ok(())
}
