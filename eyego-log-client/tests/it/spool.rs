//! Events that outlive the process, and what a spool does where it is full,
//! damaged, shared or cannot be written.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eyego_log_client::{ClientBuilder, Event, LossReason, SendError, SpoolSync};
use serde_json::json;
use tempfile::TempDir;
use wiremock::ResponseTemplate;

use crate::server::{FakeServer, Seen, accepted, quick};

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

const PATIENCE: Duration = Duration::from_secs(30);

fn spooling(url: &str, dir: &Path) -> ClientBuilder {
    quick(url).spool_dir(dir)
}

fn event(n: usize) -> Event<'static, serde_json::Value> {
    Event::new(format!("user-{n}"), "A").metadata(json!({"text": "x".repeat(300)}))
}

/// The files of the spool, the lock aside.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| !path.ends_with("lock")).collect();
    files.sort_unstable();
    files
}

/// How many events the files hold.
fn events_on_disk(dir: &Path) -> usize {
    let contents = files(dir).into_iter().map(|path| fs::read(path).unwrap_or_default());
    contents.map(|bytes| bytes.windows(8).filter(|piece| piece == b"\"userId\"").count()).sum()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn users(seen: &[Seen]) -> Vec<String> {
    seen.iter().flat_map(Seen::users).map(str::to_owned).collect()
}

/// A server that answers 503 until it is said to be up.
async fn server_that_is_down() -> (FakeServer, Arc<AtomicBool>) {
    let is_up = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_up);
    let server = FakeServer::start(move |_, seen| match switch.load(Ordering::SeqCst) {
        false => ResponseTemplate::new(503),
        true => accepted(seen),
    });
    (server.await, is_up)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_leaves_the_next_delivers_first() {
    let dir = TempDir::new().unwrap();
    let client = spooling(NOBODY, dir.path()).build().unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    let waiting = client.send(event(100));
    let id = waiting.id().unwrap();
    let report = client.shutdown_within(Duration::from_millis(100)).await;
    assert_eq!((report.unsettled, report.stats.pending), (101, 101), "{report:?}");
    assert!(!report.all_settled() && report.stats.is_balanced());
    assert_eq!((report.stats.lost.total(), report.stats.pending_bytes), (0, 0));
    assert_eq!(waiting.await, Err(SendError::Spooled { id }));

    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = spooling(&server.server.uri(), dir.path()).max_in_flight(1).build().unwrap();
    assert_eq!(client.stats().recovered, 101, "known at once");
    client.send(event(101)).await.unwrap();
    let expected: Vec<_> = (0..102).map(|n| format!("user-{n}")).collect();
    assert_eq!(users(&server.seen()), expected);
    let ids = server.seen().into_iter().flat_map(|seen| seen.events);
    assert!(ids.into_iter().any(|event| event["id"] == id.to_string()), "the same log");
    let report = client.shutdown().await;
    assert!(report.all_settled() && report.stats.is_balanced(), "{report:?}");
    assert_eq!((report.stats.accepted, report.stats.delivered), (102, 102));
    assert_eq!((report.stats.unspooled, files(dir.path()).len()), (0, 0));
}

#[tokio::test]
async fn an_outage_longer_than_the_delivery_timeout_costs_nothing() {
    let begin = Instant::now();
    let server = FakeServer::start(move |_, seen| {
        if begin.elapsed() < Duration::from_millis(500) {
            ResponseTemplate::new(503)
        } else {
            accepted(seen)
        }
    })
    .await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path());
    let client = client.delivery_timeout(Duration::from_millis(20)).build().unwrap();
    client.send(event(0)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(500));

    // A batch that fails while others do not is given up as ever.
    let server = FakeServer::start(|_, seen| match seen.users().contains(&"user-7") {
        true => ResponseTemplate::new(500),
        false => accepted(seen),
    })
    .await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path()).max_batch_events(1);
    let client = client.delivery_timeout(Duration::from_millis(50)).build().unwrap();
    let poisoned = client.send(event(7));
    for n in 0..7 {
        client.send(event(n)).await.unwrap();
    }
    let end = poisoned.await;
    assert!(matches!(end, Err(SendError::Lost { reason: LossReason::Expired, .. })), "{end:?}");
    assert!(client.stats().is_balanced());
}

/// A backlog of several times the buffer is delivered whole and in order, and
/// memory keeps its bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_may_be_larger_than_memory() {
    const BUFFER: usize = 16 << 10;
    const EVENTS: usize = 1000;

    let (server, is_up) = server_that_is_down().await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path())
        .max_event_bytes(1024)
        .max_batch_bytes(2048)
        .max_buffer_bytes(BUFFER)
        .max_in_flight(1)
        .overflow(eyego_log_client::Overflow::Block(PATIENCE))
        .spool_sync(SpoolSync::EachBatch)
        .build()
        .unwrap();
    let mut waiting = Vec::new();
    for n in 0..EVENTS {
        if n % 100 == 99 {
            let room = || client.stats().pending_bytes < BUFFER / 2;
            wait_until("there is room", room);
            waiting.push(client.send(event(n)));
        } else {
            client.log(event(n)).unwrap();
        }
        let stats = client.stats();
        assert!(stats.pending_bytes <= BUFFER && stats.is_balanced(), "{stats:?}");
    }
    assert_eq!(client.flush_within(Duration::from_millis(1)).await.unsettled, EVENTS as u64);
    is_up.store(true, Ordering::SeqCst);
    for delivery in waiting {
        delivery.await.unwrap();
    }
    let report = client.flush_within(PATIENCE).await;
    assert!(report.all_settled() && report.stats.delivered == EVENTS as u64, "{report:?}");
    // What was repeated came first and came again; no other came out of order.
    let mut users = users(&server.seen());
    let mut known = BTreeSet::new();
    users.retain(|user| known.insert(user.clone()));
    assert_eq!(users, (0..EVENTS).map(|n| format!("user-{n}")).collect::<Vec<_>>());
}

/// A full spool loses nothing that it has: what finds no room anywhere is
/// refused and counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_the_newest() {
    let (server, is_up) = server_that_is_down().await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path())
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192)
        .spool_max_bytes(32 << 10)
        .build()
        .unwrap();
    let (mut taken, mut refused) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    for n in 0.. {
        match client.log(event(n)) {
            Ok(_) => taken.push(format!("user-{n}")),
            Err(_) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(client.stats().spool_bytes <= 32 << 10);
        assert!(Instant::now() < deadline, "the spool did not fill");
        if refused > 100 && client.stats().spool_bytes > 28 << 10 {
            break;
        }
    }
    let stats = client.stats();
    assert_eq!(stats.lost.get(LossReason::Overflow), refused);
    assert!(stats.is_balanced() && stats.pending == taken.len() as u64, "{stats:?}");
    is_up.store(true, Ordering::SeqCst);
    let report = client.flush_within(PATIENCE).await;
    assert!(report.all_settled() && report.stats.is_balanced(), "{report:?}");
    assert_eq!(report.stats.delivered, taken.len() as u64);
    let delivered: BTreeSet<_> = users(&server.seen()).into_iter().collect();
    assert_eq!(delivered, taken.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tail_costs_the_tail() {
    let dir = TempDir::new().unwrap();
    let client = spooling(NOBODY, dir.path()).max_batch_events(10).build().unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    let report = client.shutdown_within(Duration::from_millis(50)).await;
    assert_eq!(report.stats.pending, 100);
    let file = files(dir.path()).pop().unwrap();
    let length = file.metadata().unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(length - 7).unwrap();

    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let hook = move |lost: &eyego_log_client::Loss<'_>| {
        assert_eq!((lost.reason, lost.events().count()), (LossReason::Damaged, 0));
        heard.fetch_add(lost.count(), Ordering::SeqCst);
    };
    let client = spooling(&server.server.uri(), dir.path()).on_loss(hook).build().unwrap();
    assert!(client.flush().await.all_settled());
    let stats = client.stats();
    assert_eq!((stats.recovered, stats.delivered), (100, 90), "{stats:?}");
    assert_eq!(stats.lost.get(LossReason::Damaged), 10);
    assert_eq!(told.load(Ordering::SeqCst), 10);
    assert!(stats.is_balanced() && stats.last_problem.unwrap().contains("is damaged"));
}

/// The files are deleted while the client runs: what was in them alone is
/// counted, and whoever waits for it is told.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_are_counted() {
    let dir = TempDir::new().unwrap();
    let (server, is_up) = server_that_is_down().await;
    let client = spooling(&server.server.uri(), dir.path())
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192)
        // More could be on their way before the first is refused, and stay in memory.
        .max_in_flight(1)
        .spool_max_bytes(64 << 10)
        .overflow(eyego_log_client::Overflow::Block(PATIENCE))
        .build()
        .unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    // It would not block, as `log` does.
    wait_until("there is room", || client.stats().pending_bytes < 4096);
    let waiting = client.send(event(100));
    wait_until("all are on disk", || events_on_disk(dir.path()) == 101);
    files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    is_up.store(true, Ordering::SeqCst);
    let end = waiting.await;
    assert!(matches!(end, Err(SendError::Lost { reason: LossReason::Damaged, .. })), "{end:?}");
    let report = client.flush_within(PATIENCE).await;
    assert!(report.all_settled() && report.stats.is_balanced(), "{report:?}");
    assert!(report.stats.lost.get(LossReason::Damaged) > 50, "{report:?}");
    client.send(event(101)).await.unwrap();
}

#[test]
fn options_that_cannot_work_are_named() {
    let dir = TempDir::new().unwrap();
    let small = spooling(NOBODY, dir.path()).spool_max_bytes(1024).build().unwrap_err();
    assert_eq!(small.option(), "spool_max_bytes");
    let never = spooling(NOBODY, dir.path()).spool_sync(SpoolSync::Every(Duration::ZERO));
    assert_eq!(never.build().unwrap_err().option(), "spool_sync");
}

/// This test binary again, as another process that runs one of the programs
/// below.
fn program(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", &format!("spool::{name}")]);
    command.env("EYEGO_TEST_DIR", dir).stdout(Stdio::null());
    command
}

fn dir_of_program() -> PathBuf {
    std::env::var_os("EYEGO_TEST_DIR").unwrap().into()
}

/// Kills the process as `kill -9` does.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "a program that another test runs"]
fn logs_until_it_is_killed() {
    let client = spooling(NOBODY, &dir_of_program()).max_batch_events(50).build().unwrap();
    for n in 0.. {
        client.log(event(n)).unwrap();
        if n % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_was_in_the_spool() {
    let dir = TempDir::new().unwrap();
    let mut known = BTreeSet::new();
    for _ in 0..3 {
        let before = events_on_disk(dir.path());
        let child = program("logs_until_it_is_killed", dir.path()).spawn().unwrap();
        wait_until("it has logged", || events_on_disk(dir.path()) > before + 1000);
        let error = spooling(NOBODY, dir.path()).build().unwrap_err();
        assert_eq!(error.option(), "spool_dir", "two processes: {error}");
        kill(child);
        // What had reached the spool when it died.
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
    let report = client.shutdown_within(PATIENCE).await;
    let stats = &report.stats;
    assert!(report.all_settled() && stats.is_balanced(), "{report:?}");
    assert_eq!(stats.recovered, stats.delivered + stats.lost.get(LossReason::Damaged));
    let ids = server.seen().into_iter().flat_map(|seen| seen.events);
    let ids: Vec<_> = ids.map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(distinct.len(), ids.len(), "none is sent twice where nothing fails");
    // A write that the kill cut short is the damaged tail.
    let missing = known.difference(&distinct).count() as u64;
    assert!(missing <= stats.lost.get(LossReason::Damaged), "{missing} missing: {stats:?}");
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
    let said = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&said);
    let tell = move |problem: &str| {
        heard.fetch_add(usize::from(problem.contains("the spool")), Ordering::SeqCst);
    };
    let client = spooling(&server.server.uri(), &dir_of_program()).max_batch_events(20);
    let client = client.on_problem(tell).build().unwrap();
    for n in 0..500 {
        client.log(event(n)).unwrap();
    }
    let report = client.shutdown_within(PATIENCE).await;
    let stats = &report.stats;
    assert!(report.all_settled() && stats.is_balanced(), "{report:?}");
    assert_eq!(stats.delivered, 500, "{report:?}");
    assert!(stats.unspooled > 0 && stats.unspooled < 500, "{report:?}");
    assert_eq!(said.load(Ordering::SeqCst), 1, "said once");
}

/// The limit of a file's size fails a write in its middle, as a full disk does.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_stops_no_delivery() {
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
