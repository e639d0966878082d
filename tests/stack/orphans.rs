//! The promise that nothing outlives the test process, tested by killing one.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::kafka::{Kafka, KafkaOptions};
use crate::mongodb::{Mongo, MongoOptions};

/// Set in the process that is to be killed; elsewhere its part of the test does nothing.
const ROLE: &str = "STACK_TEST_VICTIM";
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn victim() -> Result<()> {
    if std::env::var_os(ROLE).is_none() {
        return Ok(());
    }
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let mongo = Mongo::start(MongoOptions::default()).await?;
    // A frozen process must be ended as well.
    mongo.pause(0)?;
    println!("\npids {} {}", kafka.pid(0)?, mongo.pid(0)?);
    tokio::time::sleep(Duration::from_secs(600)).await;
    Ok(())
}

#[test]
fn a_killed_test_process_leaves_nothing_behind() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "orphans::victim", "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(victim.stdout.take().context("no stdout")?);
    let pids: Vec<String> = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("pids ")?.split(' ').map(str::to_owned).collect()))
        .context("the victim did not start its stack")?;
    assert_eq!(pids.len(), 2);
    let dirs: Vec<PathBuf> = pids
        .iter()
        .map(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")))
        .collect::<Result<_, _>>()?;
    assert!(pids.iter().all(|pid| runs(pid)), "both run while the victim lives");

    victim.kill()?;
    victim.wait()?;
    wait_for("the processes to end", || !pids.iter().any(|pid| runs(pid)))?;
    wait_for("the directories to go", || !dirs.iter().any(|dir| dir.exists()))
}

/// A zombie has ended: it only waits for its new parent to say so.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
