//! The spool: events that survive the process, and a spool that is full.

mod faults;
mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eyego_log_client::{ClientBuilder, Event, LossReason, SendError, SpoolSync};
use serde_json::json;
use tempfile::TempDir;
use wiremock::ResponseTemplate;

use crate::eventually::{TIMEOUT, eventually};
use crate::server::{FakeServer, Seen, accepted, quick, refused};

/// A URL without a server.
const UNREACHABLE: &str = "http://127.0.0.1:1";

fn spooling(url: &str, dir: &Path) -> ClientBuilder {
    quick(url).spool_dir(dir)
}

fn event(n: usize) -> Event<'static, serde_json::Value> {
    Event::new(format!("user-{n}"), "A").metadata(json!({"text": "x".repeat(300)}))
}

/// Returns the spool files without the lock file.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| !path.ends_with("lock")).collect();
    files.sort_unstable();
    files
}

/// Returns the number of events in the files.
fn events_on_disk(dir: &Path) -> usize {
    let contents = files(dir).into_iter().map(|path| fs::read(path).unwrap_or_default());
    contents.map(|bytes| bytes.windows(8).filter(|piece| piece == b"\"userId\"").count()).sum()
}

fn users(seen: &[Seen]) -> Vec<String> {
    seen.iter().flat_map(Seen::users).map(str::to_owned).collect()
}

/// Leaves 100 events in the spool, in a file of ten records. Returns the file.
async fn leave_ten_records(dir: &Path) -> PathBuf {
    // A long linger time makes every record contain exactly ten events.
    let client = spooling(UNREACHABLE, dir)
        .max_batch_events(10)
        .linger(Duration::from_secs(60))
        .build()
        .unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    let report = client.shutdown_within(Duration::from_millis(50)).await;
    assert_eq!(report.stats.pending, 100);
    files(dir).pop().unwrap()
}

/// Starts a server that responds with 503 until the switch is set.
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
async fn the_next_client_delivers_the_remaining_events_first() {
    let dir = TempDir::new().unwrap();
    let client = spooling(UNREACHABLE, dir.path()).build().unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    let delivery = client.send(event(100));
    let id = delivery.id().unwrap();
    let report = client.shutdown_within(Duration::from_millis(100)).await;
    assert_eq!((report.unsettled, report.stats.pending), (101, 101), "{report:?}");
    assert!(!report.is_settled() && report.stats.is_balanced());
    assert_eq!((report.stats.lost.total(), report.stats.pending_bytes), (0, 0));
    assert_eq!(delivery.await, Err(SendError::Spooled { id }));

    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let client = spooling(&server.server.uri(), dir.path()).max_in_flight(1).build().unwrap();
    assert_eq!(client.stats().recovered, 101, "known before anything is sent");
    client.send(event(101)).await.unwrap();
    let expected: Vec<_> = (0..102).map(|n| format!("user-{n}")).collect();
    assert_eq!(users(&server.seen()), expected);
    let ids = server.seen().into_iter().flat_map(|seen| seen.events);
    assert!(ids.into_iter().any(|event| event["id"] == id.to_string()), "the same event");
    let report = client.shutdown().await;
    assert!(report.is_settled() && report.stats.is_balanced(), "{report:?}");
    assert_eq!((report.stats.accepted, report.stats.delivered), (102, 102));
    assert_eq!((report.stats.unspooled, files(dir.path()).len()), (0, 0));
}

#[tokio::test]
async fn an_outage_longer_than_the_delivery_timeout_loses_nothing() {
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

    // A batch that fails while others succeed still expires.
    let server = FakeServer::start(|_, seen| match seen.users().contains(&"user-7") {
        true => ResponseTemplate::new(500),
        false => accepted(seen),
    })
    .await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path()).max_batch_events(1);
    let client = client.delivery_timeout(Duration::from_millis(50)).build().unwrap();
    let failing = client.send(event(7));
    for n in 0..7 {
        client.send(event(n)).await.unwrap();
    }
    let result = failing.await;
    assert!(
        matches!(result, Err(SendError::Lost { reason: LossReason::Expired, .. })),
        "{result:?}"
    );
    assert!(client.stats().is_balanced());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_larger_than_the_buffer_is_delivered_in_order() {
    const BUFFER: usize = 16 << 10;
    const EVENTS: usize = 1000;

    let (server, is_up) = server_that_is_down().await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path())
        .max_event_bytes(1024)
        .max_batch_bytes(2048)
        .max_buffer_bytes(BUFFER)
        .max_in_flight(1)
        .overflow(eyego_log_client::Overflow::Block(TIMEOUT))
        .spool_sync(SpoolSync::EachBatch)
        .build()
        .unwrap();
    let mut deliveries = Vec::new();
    for n in 0..EVENTS {
        if n % 100 == 99 {
            let has_room = || client.stats().pending_bytes < BUFFER / 2;
            eventually("there is room", has_room);
            deliveries.push(client.send(event(n)));
        } else {
            client.log(event(n)).unwrap();
        }
        let stats = client.stats();
        assert!(stats.pending_bytes <= BUFFER && stats.is_balanced(), "{stats:?}");
    }
    assert_eq!(client.flush_within(Duration::from_millis(1)).await.unsettled, EVENTS as u64);
    is_up.store(true, Ordering::SeqCst);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let report = client.flush_within(TIMEOUT).await;
    assert!(report.is_settled() && report.stats.delivered == EVENTS as u64, "{report:?}");
    // Retried events arrive more than once; the first arrivals are in order.
    let mut users = users(&server.seen());
    let mut known = BTreeSet::new();
    users.retain(|user| known.insert(user.clone()));
    assert_eq!(users, (0..EVENTS).map(|n| format!("user-{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_keeps_its_events_and_new_ones_are_refused() {
    let (server, is_up) = server_that_is_down().await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path())
        .max_event_bytes(1024)
        .max_batch_bytes(1024)
        .max_buffer_bytes(8192)
        .spool_max_bytes(32 << 10)
        .build()
        .unwrap();
    let (mut accepted_users, mut refused) = (Vec::new(), 0);
    let deadline = Instant::now() + TIMEOUT;
    for n in 0.. {
        match client.log(event(n)) {
            Ok(_) => accepted_users.push(format!("user-{n}")),
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
    assert!(stats.is_balanced() && stats.pending == accepted_users.len() as u64, "{stats:?}");
    is_up.store(true, Ordering::SeqCst);
    let report = client.flush_within(TIMEOUT).await;
    assert!(report.is_settled() && report.stats.is_balanced(), "{report:?}");
    assert_eq!(report.stats.delivered, accepted_users.len() as u64);
    let delivered: BTreeSet<_> = users(&server.seen()).into_iter().collect();
    assert_eq!(delivered, accepted_users.into_iter().collect());
}

/// The key is wrong for longer than the delivery timeout. Without a spool, such
/// events are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_keeps_spooled_events_until_it_works() {
    let is_valid = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_valid);
    let server = FakeServer::start(move |_, seen| match switch.load(Ordering::SeqCst) {
        false => refused(401),
        true => accepted(seen),
    })
    .await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path()).max_batch_events(10);
    let client = client.delivery_timeout(Duration::from_millis(20)).build().unwrap();
    for n in 0..100 {
        client.log(event(n)).unwrap();
    }
    eventually("many attempts have failed", || server.seen().len() > 20);
    let stats = client.stats();
    assert_eq!((stats.pending, stats.lost.total()), (100, 0), "{stats:?}");
    assert!(stats.last_problem.unwrap().message.contains("status 401"));
    is_valid.store(true, Ordering::SeqCst);
    assert!(client.flush_within(TIMEOUT).await.all_delivered());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_loses_events_that_reach_their_maximum_age() {
    let server = FakeServer::start(|_, _| refused(403)).await;
    let dir = TempDir::new().unwrap();
    let client = spooling(&server.server.uri(), dir.path());
    let client = client.spool_max_age(Duration::from_secs(1)).build().unwrap();
    client.log(event(0)).unwrap();
    let report = client.flush_within(TIMEOUT).await;
    assert_eq!(report.stats.lost.get(LossReason::Unauthorized), 1, "{report:?}");
    assert!(report.is_settled() && report.stats.is_balanced());
}

/// No attempt is needed for events to expire, and no event is delivered too late.
#[tokio::test(flavor = "multi_thread")]
async fn events_expire_while_the_server_is_down() {
    let dir = TempDir::new().unwrap();
    let client = spooling(UNREACHABLE, dir.path())
        .max_batch_events(10)
        .spool_max_age(Duration::from_secs(1))
        .build()
        .unwrap();
    for n in 0..400 {
        client.log(event(n)).unwrap();
    }
    let begin = Instant::now();
    eventually("all events are lost", || client.stats().pending == 0);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let stats = client.stats();
    assert_eq!((stats.lost.get(LossReason::Expired), stats.pending_bytes), (400, 0));
    assert!(stats.is_balanced(), "{stats:?}");
}

#[test]
fn invalid_spool_options_are_named_in_the_error() {
    let dir = TempDir::new().unwrap();
    let small = spooling(UNREACHABLE, dir.path()).spool_max_bytes(1024).build().unwrap_err();
    assert_eq!(small.option(), "spool_max_bytes");
    let zero = spooling(UNREACHABLE, dir.path()).spool_sync(SpoolSync::Every(Duration::ZERO));
    assert_eq!(zero.build().unwrap_err().option(), "spool_sync");
}
