//! The SDK against the real server: events are sent and read back, and survive the death of the
//! server or of the program.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use eyego_log_client::{
    Client, ClientBuilder, Event, LogEntry, LogId, LossReason, Order, Overflow, Stats,
};
use serde_json::json;
use stack::chaos::{Scenario, Target};
use stack::eventually;
use stack::server::Server;

use crate::fixture::{Deployment, embedded_server, ready};

const TIMEOUT: Duration = Duration::from_secs(60);

fn client_of(server: &Server) -> ClientBuilder {
    Client::builder(server.base_url()).linger(Duration::from_millis(20))
}

async fn server_on_kafka_and_mongodb() -> Server {
    ready(Deployment::shared().await.server("all")).await
}

/// Reads all logs of a user, oldest first.
async fn read_all(client: &Client, user: &str) -> anyhow::Result<Vec<LogEntry>> {
    let mut logs = Vec::new();
    let mut stream = client.query().user(user).order(Order::Ascending).limit(1000).stream();
    while let Some(log) = stream.next_event().await {
        logs.push(log?);
    }
    Ok(logs)
}

/// Waits until the user has this many logs, and returns them.
async fn stored(client: &Client, user: &str, count: usize) -> Vec<LogEntry> {
    eventually(&format!("{count} logs of {user}"), TIMEOUT, async || {
        let logs = read_all(client, user).await?;
        ensure!(logs.len() >= count, "{} logs", logs.len());
        Ok(logs)
    })
    .await
    .unwrap()
}

/// Waits until the client's statistics are like this.
async fn stats_until(client: &Client, what: &str, holds: impl Fn(&Stats) -> bool) {
    eventually(what, TIMEOUT, async || {
        let stats = client.stats();
        ensure!(holds(&stats), "{stats:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn logged_events_can_be_read_back(server: &Server) {
    let client = client_of(server).build().unwrap();
    let metadata = json!({"page": "home", "cart": {"items": 2, "sum": 1.5}, "a.b": [null, "ü\0"]});
    let id = client.send(Event::new("ada", "CLICK").metadata(&metadata)).await.unwrap();
    for n in 0..2500 {
        client.log(Event::new("ada", "VIEW").metadata(json!({"n": n}))).unwrap();
    }
    assert!(client.flush_within(TIMEOUT).await.is_settled());
    let logs = stored(&client, "ada", 2501).await;
    assert_eq!(logs.len(), 2501);
    assert!(logs[0].id == id && logs[0].metadata.to_map() == *metadata.as_object().unwrap());

    let log = client.query().get(id).await.unwrap().unwrap();
    assert_eq!(log.action.as_str(), "CLICK");
    let filtered = client.query().user("ada").metadata("cart.items", 2).action("CLICK");
    let page = filtered.fetch().await.unwrap();
    assert!(page.data.len() == 1 && page.data[0] == log && page.next_cursor.is_none());
    let page = client.query().since(logs[0].timestamp).limit(7).fetch().await.unwrap();
    assert!(page.data.len() == 7 && page.next_cursor.is_some());
    let error = client.query().page(5000).fetch().await.unwrap_err();
    let status = error.status().unwrap();
    assert!(status.status == 400 && status.request_id.is_some() && !error.is_retryable());
    assert!(status.errors.iter().any(|error| error.path == "page"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logged_events_can_be_read_back_embedded() {
    logged_events_can_be_read_back(&embedded_server().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logged_events_can_be_read_back_on_kafka_and_mongodb() {
    logged_events_can_be_read_back(&server_on_kafka_and_mongodb().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_over_the_servers_limit_does_not_affect_its_neighbours() {
    let server = embedded_server().await;
    let client = client_of(&server).max_event_bytes(512 << 10).max_batch_bytes(1 << 20);
    let client = client.build().unwrap();
    for n in 0..10 {
        let length = if n == 5 { 300 << 10 } else { 10 };
        client.log(Event::new("ada", "A").metadata(json!({"text": "x".repeat(length)}))).unwrap();
    }
    let report = client.flush_within(TIMEOUT).await;
    assert_eq!(report.stats.delivered, 9, "{report:?}");
    assert_eq!(report.stats.lost.get(LossReason::TooLarge), 1, "{report:?}");
}

/// Logs event `n` of a scenario under the id that the scenario gives it.
fn log_event(client: &Client, scenario: &Scenario, n: u64) {
    let (id, event) = scenario.event(n);
    let text = |field: &str| event[field].as_str();
    let log = Event::new(text("userId").unwrap(), text("action").unwrap())
        .id(id.parse::<LogId>().unwrap())
        .metadata(&event["metadata"]);
    let logged = match text("timestamp") {
        Some(timestamp) => {
            client.log(log.timestamp(timestamp.parse::<eyego_log_core::Timestamp>().unwrap()))
        }
        None => client.log(log),
    };
    scenario.acknowledge(n, &logged.unwrap().to_string());
}

/// The server is killed and restarted while eight threads log. Each event must be stored once.
async fn killed_server_loses_no_event(server: &Server) {
    const THREADS: u64 = 8;
    const EVENTS: u64 = 5000;

    let client = client_of(server)
        .max_batch_events(100)
        .retry(Duration::from_millis(20), Duration::from_millis(200))
        .overflow(Overflow::Block(TIMEOUT))
        .on_problem(|_| {})
        .build()
        .unwrap();
    let target = Target { apis: vec![server.base_url()], kafka: None };
    let scenario = Arc::new(Scenario::new(target, 1, THREADS * EVENTS));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (client, scenario) = (client.clone(), Arc::clone(&scenario));
            std::thread::spawn(move || {
                for n in 0..EVENTS {
                    log_event(&client, &scenario, thread * EVENTS + n);
                    // About a second of load.
                    if n % 50 == 0 {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            })
        })
        .collect();
    for kill in 1..=2 {
        let share = kill * THREADS * EVENTS / 4;
        stats_until(&client, "a part to be delivered", |stats| stats.delivered >= share).await;
        let failed = client.stats().failed_requests;
        server.kill().unwrap();
        stats_until(&client, "a request to fail", |stats| stats.failed_requests > failed).await;
        server.restart().await.unwrap();
    }
    for thread in threads {
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    }
    let report = client.flush_within(TIMEOUT).await;
    let stats = &report.stats;
    assert!(report.is_settled() && stats.is_balanced(), "{report:?}");
    assert_eq!(stats.accepted, THREADS * EVENTS);
    assert_eq!(stats.lost.total(), 0, "{report:?}");
    let violations = scenario.check(&[], TIMEOUT).await.unwrap();
    assert!(violations.is_empty(), "{violations}");
    assert!(client.shutdown().await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_loses_no_event_embedded() {
    killed_server_loses_no_event(&embedded_server().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_loses_no_event_on_kafka_and_mongodb() {
    killed_server_loses_no_event(&server_on_kafka_and_mongodb().await).await;
}

/// A program that logs until it is killed.
#[test]
#[ignore = "run as a child by killed_program_loses_no_spooled_event"]
fn child_that_logs_with_a_spool() {
    let builder = ClientBuilder::from_env().unwrap().linger(Duration::from_millis(5));
    let client = builder.max_batch_events(100).on_problem(|_| {}).build().unwrap();
    let user = std::env::var("EYEGO_TEST_USER").unwrap();
    for n in 0.. {
        client.log(Event::new(&*user, "A").metadata(json!({"n": n}))).unwrap();
        if n % 20 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Returns the ids in the files of a spool.
fn ids_in_spool(dir: &Path) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        // The program removes files that it has delivered.
        let Ok(bytes) = std::fs::read(entry.unwrap().path()) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        // The kill may have cut off the last line.
        for line in text.lines().filter(|line| line.ends_with('}')) {
            // The head of a record is binary and may look like the end of a line.
            let id = line.split_once("{\"id\":\"").and_then(|(_, rest)| rest.get(..24));
            ids.extend(id.map(str::to_owned));
        }
    }
    ids
}

/// Waits until the spool holds at least this many ids that are not in `known`.
async fn spool_grows(dir: &Path, known: &BTreeSet<String>, by: usize) {
    eventually(&format!("{by} events in the spool"), TIMEOUT, async || {
        let fresh = ids_in_spool(dir).difference(known).count();
        ensure!(fresh >= by, "{fresh} events");
        Ok(())
    })
    .await
    .unwrap();
}

/// A program is killed four times while it logs. In every second run, and so in the last one, the
/// server is killed first. Each event that was in the program's spool must be stored once.
async fn killed_program_loses_no_spooled_event(server: &Server) {
    const RUNS: usize = 4;

    let reader = client_of(server).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut spooled = BTreeSet::new();
    for run in 0..RUNS {
        let is_down = run % 2 == 1;
        let known = ids_in_spool(dir.path());
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "client::child_that_logs_with_a_spool"])
            .env("EYEGO_LOG_URL", server.base_url())
            .env("EYEGO_LOG_SPOOL_DIR", dir.path())
            .env("EYEGO_TEST_USER", format!("run-{run}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        spool_grows(dir.path(), &known, 1).await;
        eventually("events of this run to be stored", TIMEOUT, async || {
            let page = reader.query().user(format!("run-{run}")).limit(500).fetch().await?;
            ensure!(page.data.len() == 500, "{} logs", page.data.len());
            Ok(())
        })
        .await
        .unwrap();
        if is_down {
            server.kill().unwrap();
            spool_grows(dir.path(), &ids_in_spool(dir.path()), 1000).await;
        }
        program.kill().unwrap();
        program.wait().unwrap();
        spooled.extend(ids_in_spool(dir.path()));
        if is_down {
            server.restart().await.unwrap();
        }
    }
    assert!(spooled.len() > 1000, "only {} events were in the spool", spooled.len());

    let client = client_of(server).spool_dir(dir.path()).build().unwrap();
    let report = client.flush_within(TIMEOUT).await;
    let stats = &report.stats;
    assert!(report.is_settled() && stats.is_balanced(), "{report:?}");
    assert!(stats.recovered == stats.accepted && stats.delivered > 0, "{report:?}");
    // An event whose write was cut off by the kill was never in the spool.
    assert_eq!(stats.lost.total(), stats.lost.get(LossReason::Damaged), "{report:?}");
    eventually("each spooled event to be stored", TIMEOUT, async || {
        let mut ids = BTreeSet::new();
        for run in 0..RUNS {
            let logs = read_all(&client, &format!("run-{run}")).await?;
            ensure!(!logs.is_empty(), "no log of run {run}");
            let numbers: BTreeSet<_> = logs.iter().map(|log| log.metadata.as_json()).collect();
            assert_eq!(numbers.len(), logs.len(), "an event is stored twice");
            ids.extend(logs.iter().map(|log| log.id.to_string()));
        }
        let missing = spooled.difference(&ids).count();
        ensure!(missing == 0, "{missing} of {} are missing", spooled.len());
        Ok(())
    })
    .await
    .unwrap();
    assert!(client.shutdown().await.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_program_loses_no_spooled_event_embedded() {
    killed_program_loses_no_spooled_event(&embedded_server().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_program_loses_no_spooled_event_on_kafka_and_mongodb() {
    killed_program_loses_no_spooled_event(&server_on_kafka_and_mongodb().await).await;
}
