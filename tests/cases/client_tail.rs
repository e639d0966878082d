//! The SDK's tail against the real server, which is killed meanwhile. The oracle is the store: each stored
//! event is on the tail exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use eyego_log_client::{Client, Event, LogEntry, LogId, Order, Overflow, Tail, TailItem};
use stack::server::Server;
use tokio::task::JoinHandle;

use crate::fixture::{Deployment, TIMEOUT, embedded_server, ready};

/// Ends the tail of a test.
const END: &str = "END";

fn client_of(server: &Server) -> Client {
    Client::builder(server.base_url())
        .linger(Duration::from_millis(20))
        .retry(Duration::from_millis(20), Duration::from_millis(200))
        .overflow(Overflow::Block(3 * TIMEOUT))
        .on_problem(|_| {})
        .build()
        .unwrap()
}

/// Stores events, of which every tenth has a time from before the test, so that it is the newest in the
/// order of storing and the oldest in the list.
async fn store(client: &Client, action: &str, events: u32) {
    let earlier = SystemTime::now() - Duration::from_secs(3600);
    for n in 0..events {
        let event = Event::new("ada", action).field("n", n);
        client.log(if n % 10 == 5 { event.timestamp(earlier) } else { event }).unwrap();
    }
    all_stored(client).await;
}

/// Waits until everything that was logged is stored.
async fn all_stored(client: &Client) {
    let report = client.flush_within(3 * TIMEOUT).await;
    assert!(report.all_delivered(), "{report:?}");
    stack::eventually("all events to be stored", 3 * TIMEOUT, async || {
        let stored = read_all(client).await.len() as u64;
        anyhow::ensure!(stored == report.stats.delivered, "{stored}: {report:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn next(tail: &mut Tail) -> TailItem {
    let item = tokio::time::timeout(3 * TIMEOUT, tail.next_item()).await;
    item.expect("nothing is on the tail").expect("the tail has ended").unwrap()
}

/// Takes events until the last one of a test. Returns them, and how often the tail was interrupted.
async fn take_all(tail: &mut Tail) -> (Vec<LogEntry>, usize) {
    let (mut events, mut interruptions) = (Vec::new(), 0);
    loop {
        match next(tail).await {
            TailItem::Event(entry) if entry.action.as_str() == END => {
                return (events, interruptions);
            }
            TailItem::Event(entry) => events.push(entry),
            TailItem::Interrupted(_) => interruptions += 1,
            item => panic!("{item:?}"),
        }
    }
}

/// Returns everything that is stored, by id.
async fn read_all(client: &Client) -> BTreeMap<LogId, LogEntry> {
    let mut stored = BTreeMap::new();
    let mut stream = client.query().order(Order::Ascending).limit(1000).stream();
    while let Some(entry) = stream.next_event().await {
        let entry = entry.unwrap();
        stored.insert(entry.id, entry);
    }
    stored
}

/// Compares what was on a tail with what is stored, apart from `before`, of which only the backlog is on
/// the tail.
async fn assert_complete(client: &Client, before: &[LogId], received: Vec<LogEntry>) {
    let mut stored = read_all(client).await;
    stored.retain(|id, entry| entry.action.as_str() != END && !before.contains(id));
    let count = received.len();
    let unexpected: Vec<_> = received
        .into_iter()
        .filter(|entry| stored.remove(&entry.id).as_ref() != Some(entry))
        .collect();
    assert!(unexpected.is_empty(), "{} of {count}: {:?}", unexpected.len(), unexpected[0]);
    assert!(stored.is_empty(), "{} are missing: {:?}", stored.len(), stored.first_key_value());
}

async fn kill_and_restart(server: &Server) {
    server.kill().unwrap();
    server.restart().await.unwrap();
    server.wait_ready(2 * TIMEOUT).await.unwrap();
}

/// Logs until it is told to stop.
fn log_in_background(client: &Client, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (client, stop) = (client.clone(), Arc::clone(stop));
    tokio::task::spawn_blocking(move || {
        for n in 0_u32.. {
            client.log(Event::new(format!("u{}", n % 7), "A").field("n", n)).unwrap();
            if n % 20 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    })
}

async fn each_event_is_once_on_a_tail_through_kills(server: &Server) {
    let client = client_of(server);
    store(&client, "BEFORE", 100).await;
    let newest_first = client.query().limit(1000).fetch().await.unwrap().data;
    let before: Vec<_> = newest_first[30..].iter().map(|entry| entry.id).collect();
    let mut tail = client.query().tail().last(30);
    let first = next(&mut tail).await;
    let TailItem::Event(first) = first else { panic!("{first:?}") };
    let stop = Arc::default();
    let logging = log_in_background(&client, &stop);
    let following = tokio::spawn(async move { take_all(&mut tail).await });
    for kill in 1..=4 {
        let goal = client.stats().delivered + 500;
        stack::eventually("500 events to be delivered", 3 * TIMEOUT, async || {
            let stats = client.stats();
            anyhow::ensure!(stats.delivered >= goal, "before kill {kill}: {stats:?}");
            Ok(())
        })
        .await
        .unwrap();
        kill_and_restart(server).await;
    }
    stop.store(true, Ordering::Relaxed);
    logging.await.unwrap();
    all_stored(&client).await;
    client.send_stored(Event::new("ada", END), TIMEOUT).await.unwrap();
    let (mut received, interruptions) = following.await.unwrap();
    assert!(interruptions > 0);
    received.push(first);
    assert_complete(&client, &before, received).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_once_on_a_tail_through_kills_of_an_embedded_server() {
    each_event_is_once_on_a_tail_through_kills(&embedded_server().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_once_on_a_tail_through_kills_of_a_server_on_mongodb() {
    let server = ready(Deployment::shared().await.server("all")).await;
    each_event_is_once_on_a_tail_through_kills(&server).await;
}

/// More events than a tail can begin with are stored while the tail is interrupted among those that it
/// began with.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_interrupted_in_its_backlog_misses_nothing() {
    let server = embedded_server().await;
    let client = client_of(&server);
    store(&client, "BEFORE", 20).await;
    let mut tail = client.query().tail().last(1000);
    let mut received = Vec::new();
    for _ in 0..3 {
        match next(&mut tail).await {
            TailItem::Event(entry) => received.push(entry),
            item => panic!("{item:?}"),
        }
    }
    kill_and_restart(&server).await;
    store(&client, "MEANWHILE", 1500).await;
    client.send_stored(Event::new("ada", END), TIMEOUT).await.unwrap();
    let (rest, interruptions) = take_all(&mut tail).await;
    assert!(interruptions > 0);
    received.extend(rest);
    assert_complete(&client, &[], received).await;
}
