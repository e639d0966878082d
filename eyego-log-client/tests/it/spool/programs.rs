//! Programs with a spool that are killed, or whose disk is full. Tests of this binary that
//! other tests run as separate programs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eyego_log_client::LossReason;
use tempfile::TempDir;
use wiremock::ResponseTemplate;

use super::{UNREACHABLE, event, events_on_disk, files, spooling};
use crate::eventually::{TIMEOUT, eventually};
use crate::server::{FakeServer, accepted};

/// Returns the command that runs a test of this binary as a separate program.
fn program(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", &format!("spool::programs::{name}")]);
    command.env("EYEGO_TEST_DIR", dir).stdout(Stdio::null());
    command
}

fn dir_of_program() -> PathBuf {
    std::env::var_os("EYEGO_TEST_DIR").unwrap().into()
}

/// Kills the process with SIGKILL.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "a program that another test runs"]
fn logs_until_it_is_killed() {
    let client = spooling(UNREACHABLE, &dir_of_program()).max_batch_events(50).build().unwrap();
    for n in 0.. {
        client.log(event(n)).unwrap();
        if n % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spooled_events_survive_a_killed_process() {
    let dir = TempDir::new().unwrap();
    let mut known = BTreeSet::new();
    for _ in 0..3 {
        let before = events_on_disk(dir.path());
        let child = program("logs_until_it_is_killed", dir.path()).spawn().unwrap();
        eventually("the process has spooled events", || events_on_disk(dir.path()) > before + 1000);
        let error = spooling(UNREACHABLE, dir.path()).build().unwrap_err();
        assert_eq!(error.option(), "spool_dir", "the directory is locked: {error}");
        kill(child);
        // The events that were in the spool when the process died.
        for file in files(dir.path()) {
            let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
            let ids = text.lines().filter(|line| line.ends_with('}'));
            let ids =
                ids.filter_map(|line| Some(line.split_once("{\"id\":\"")?.1[..24].to_owned()));
            known.extend(ids);
        }
    }
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = spooling(&server.server.uri(), dir.path()).build().unwrap();
    let report = client.shutdown_within(TIMEOUT).await;
    let stats = &report.stats;
    assert!(report.is_settled() && stats.is_balanced(), "{report:?}");
    let interrupted = stats.lost.get(LossReason::Interrupted);
    assert_eq!(stats.recovered, stats.delivered + interrupted);
    let ids = server.seen().into_iter().flat_map(|seen| seen.events);
    let ids: Vec<_> = ids.map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(distinct.len(), ids.len(), "without failures, no event is sent twice");
    let missing = known.difference(&distinct).count() as u64;
    assert!(missing <= interrupted, "{missing} missing: {stats:?}");
    assert!(known.len() > 3000 && files(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program that another test runs"]
async fn writes_to_a_disk_that_fills() {
    let server = FakeServer::start(|n, seen| match n {
        0..3 => ResponseTemplate::new(503),
        _ => accepted(seen),
    })
    .await;
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reported);
    let hook = move |problem: &str| {
        counter.fetch_add(usize::from(problem.contains("the spool")), Ordering::SeqCst);
    };
    let client = spooling(&server.server.uri(), &dir_of_program()).max_batch_events(20);
    let client = client.on_problem(hook).build().unwrap();
    for n in 0..500 {
        client.log(event(n)).unwrap();
    }
    let report = client.shutdown_within(TIMEOUT).await;
    let stats = &report.stats;
    assert!(report.is_settled() && stats.is_balanced(), "{report:?}");
    assert_eq!(stats.delivered, 500, "{report:?}");
    assert!(stats.unspooled > 0 && stats.unspooled < 500, "{report:?}");
    assert_eq!(reported.load(Ordering::SeqCst), 1, "the problem is reported once");
}

/// A limit on the file size makes a write fail halfway, like a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_does_not_stop_delivery() {
    let dir = TempDir::new().unwrap();
    let program = program("writes_to_a_disk_that_fills", dir.path());
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\""]);
    shell.arg(program.get_program()).args(program.get_args());
    shell.env("EYEGO_TEST_DIR", dir.path());
    let output = shell.output().unwrap();
    std::io::stderr().write_all(&output.stdout).unwrap();
    assert!(output.status.success());
    assert!(files(dir.path()).is_empty());
}
