//! A test process that is killed must leave no process and no directory behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;

use crate::eventually_blocking;
use crate::kafka::{Kafka, KafkaOptions};
use crate::mongodb::{Mongo, MongoOptions};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The process that is killed.
#[tokio::test]
#[ignore = "run as a child by killed_test_process_leaves_nothing_behind"]
async fn child_that_starts_a_stack() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let mongo = Mongo::start(MongoOptions::default()).await.unwrap();
    // A frozen process must end as well.
    mongo.pause(0).unwrap();
    println!("\npids {} {}", kafka.pid(0).unwrap(), mongo.pid(0).unwrap());
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[test]
fn killed_test_process_leaves_nothing_behind() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "orphans::child_that_starts_a_stack", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let pids: Vec<String> = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("pids ")?.split(' ').map(str::to_owned).collect()))
        .expect("the child did not start its stack");
    assert_eq!(pids.len(), 2);
    let dirs: Vec<PathBuf> =
        pids.iter().map(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap()).collect();
    assert!(pids.iter().all(|pid| is_running(pid)), "both run while the child lives");

    child.kill().unwrap();
    child.wait().unwrap();
    eventually_blocking("the processes to end and the directories to vanish", TIMEOUT, || {
        let running: Vec<_> = pids.iter().filter(|pid| is_running(pid)).collect();
        let existing: Vec<_> = dirs.iter().filter(|dir| dir.exists()).collect();
        ensure!(running.is_empty() && existing.is_empty(), "{running:?}, {existing:?}");
        Ok(())
    })
    .unwrap();
}

/// A zombie has ended and only waits for its new parent to reap it.
fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}
