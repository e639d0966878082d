//! The SDK against the real server: written, read back, and through the
//! server's death.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eyego_log_client::{Client, ClientBuilder, Event, LossReason, Order, Overflow};
use serde_json::json;
use stack::server::{Server, ServerBuilder};

use crate::fixture::Names;

const PATIENCE: Duration = Duration::from_secs(60);

async fn start() -> Result<(Server, ClientBuilder)> {
    started(Server::builder()).await
}

async fn start_on_kafka_and_mongodb() -> Result<(Server, ClientBuilder)> {
    started(Names::new().await.server("all", "g")).await
}

async fn started(server: ServerBuilder) -> Result<(Server, ClientBuilder)> {
    let server = server.start().await?;
    server.wait_ready(PATIENCE).await?;
    let client = Client::builder(server.base_url()).linger(Duration::from_millis(20));
    Ok((server, client))
}

/// Reads until there are this many logs of the user.
async fn stored(
    client: &Client,
    user: &str,
    count: usize,
) -> Result<Vec<eyego_log_client::LogEntry>> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut logs = Vec::new();
        let mut stream = client.query().user(user).order(Order::Ascending).limit(1000).stream();
        while let Some(log) = stream.next_event().await {
            logs.push(log?);
        }
        if logs.len() >= count {
            return Ok(logs);
        }
        let found = logs.len();
        ensure!(tokio::time::Instant::now() < deadline, "only {found} of {count} logs of {user}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_can_be_read_back_embedded() -> Result<()> {
    let (_server, client) = start().await?;
    what_is_logged_can_be_read_back(client.build()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_can_be_read_back_on_kafka_and_mongodb() -> Result<()> {
    let (_server, client) = start_on_kafka_and_mongodb().await?;
    what_is_logged_can_be_read_back(client.build()?).await
}

async fn what_is_logged_can_be_read_back(client: Client) -> Result<()> {
    let metadata = json!({"page": "home", "cart": {"items": 2, "sum": 1.5}, "a.b": [null, "ü\0"]});
    let id = client.send(Event::new("ada", "CLICK").metadata(&metadata)).await?;
    for n in 0..2500 {
        client.log(Event::new("ada", "VIEW").metadata(json!({"n": n})))?;
    }
    ensure!(client.flush_within(PATIENCE).await.all_settled());
    let logs = stored(&client, "ada", 2501).await?;
    ensure!(logs.len() == 2501);
    ensure!(logs[0].id == id && logs[0].metadata.to_map() == *metadata.as_object().unwrap());

    let log = client.query().get(id).await?.context("not there")?;
    ensure!(log.action.as_str() == "CLICK");
    let page = client.query().user("ada").metadata("cart.items", 2).action("CLICK").fetch().await?;
    ensure!(page.data.len() == 1 && page.data[0] == log && page.next_cursor.is_none());
    let page = client.query().since(logs[0].timestamp).limit(7).fetch().await?;
    ensure!(page.data.len() == 7 && page.next_cursor.is_some());
    let deep = client.query().page(5000).fetch().await.unwrap_err();
    let status = deep.status().context("a failure")?;
    ensure!(status.status == 400 && status.request_id.is_some() && !deep.is_retryable());
    ensure!(status.errors.iter().any(|error| error.path == "page"), "{deep}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_over_the_servers_limit_costs_no_neighbour() -> Result<()> {
    let (_server, client) = start().await?;
    let client = client.max_event_bytes(512 << 10).max_batch_bytes(1 << 20).build()?;
    for n in 0..10 {
        let length = if n == 5 { 300 << 10 } else { 10 };
        client.log(Event::new("ada", "A").metadata(json!({"text": "x".repeat(length)})))?;
    }
    let report = client.flush_within(PATIENCE).await;
    ensure!(report.stats.delivered == 9, "{report:?}");
    ensure!(report.stats.lost.get(LossReason::TooLarge) == 1, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing_that_is_not_counted_embedded() -> Result<()> {
    let (server, client) = start().await?;
    a_killed_server_costs_nothing_that_is_not_counted(server, client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing_that_is_not_counted_on_kafka_and_mongodb() -> Result<()> {
    let (server, client) = start_on_kafka_and_mongodb().await?;
    a_killed_server_costs_nothing_that_is_not_counted(server, client).await
}

/// The server is killed, and restarted, while eight threads log: each event is
/// stored once or counted as lost.
async fn a_killed_server_costs_nothing_that_is_not_counted(
    server: Server,
    client: ClientBuilder,
) -> Result<()> {
    const THREADS: usize = 8;
    const EVENTS: usize = 5000;

    let client = client
        .max_batch_events(100)
        .retry(Duration::from_millis(20), Duration::from_millis(200))
        .overflow(Overflow::Block(PATIENCE))
        .on_problem(|_| {})
        .build()?;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for n in 0..EVENTS {
                    let user = format!("user-{thread}");
                    client.log(Event::new(user, "A").metadata(json!({"n": n}))).unwrap();
                    if n % 50 == 0 {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            })
        })
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill()?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.restart().await?;
    }
    for thread in threads {
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await?;
    }
    let report = client.flush_within(PATIENCE).await;
    let stats = &report.stats;
    ensure!(report.all_settled() && stats.is_balanced(), "{report:?}");
    ensure!(stats.accepted == (THREADS * EVENTS) as u64);
    ensure!(stats.failed_requests > 0, "the deaths were not felt: {report:?}");
    ensure!(stats.lost.total() == 0, "{report:?}");

    for thread in 0..THREADS {
        let logs = stored(&client, &format!("user-{thread}"), EVENTS).await?;
        let mut times_stored: HashMap<i64, usize> = HashMap::new();
        for log in &logs {
            let n = log.metadata.to_map()["n"].as_i64().context("n")?;
            *times_stored.entry(n).or_default() += 1;
        }
        ensure!(logs.len() == EVENTS && times_stored.len() == EVENTS, "each exactly once");
    }
    ensure!(client.shutdown().await.all_settled());
    Ok(())
}

/// A program that logs until it is killed; another test runs it.
#[test]
#[ignore = "a program that another test runs"]
fn a_program_with_a_spool() -> Result<()> {
    let client = ClientBuilder::from_env()?.linger(Duration::from_millis(5)).max_batch_events(100);
    let client = client.on_problem(|_| {}).build()?;
    let user = std::env::var("EYEGO_TEST_USER")?;
    for n in 0.. {
        client.log(Event::new(&*user, "A").metadata(json!({"n": n})))?;
        if n % 20 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// The ids in the files of a spool.
fn ids_in_spool(dir: &Path) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let bytes = std::fs::read(entry?.path())?;
        let text = String::from_utf8_lossy(&bytes);
        // The last line may have been cut short by the kill.
        for line in text.lines().filter(|line| line.ends_with('}')) {
            // The head of a record is no text, and may look like a line.
            let id = line.split_once("{\"id\":\"").and_then(|(_, rest)| rest.get(..24));
            ids.extend(id.map(str::to_owned));
        }
    }
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_is_survived_by_its_events_embedded() -> Result<()> {
    let (server, client) = start().await?;
    a_killed_program_is_survived_by_its_events(server, client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_is_survived_by_its_events_on_kafka_and_mongodb() -> Result<()> {
    let (server, client) = start_on_kafka_and_mongodb().await?;
    a_killed_program_is_survived_by_its_events(server, client).await
}

/// A program is killed while it logs, with the server there and away in turn, at
/// last away, so that something is left: whatever was in its spool is stored
/// once.
async fn a_killed_program_is_survived_by_its_events(
    server: Server,
    client: ClientBuilder,
) -> Result<()> {
    const RUNS: usize = 4;

    let dir = tempfile::tempdir()?;
    let mut spooled = BTreeSet::new();
    for run in 0..RUNS {
        let is_away = run % 2 == 1;
        let mut program = Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", "client::a_program_with_a_spool"])
            .env("EYEGO_LOG_URL", server.base_url())
            .env("EYEGO_LOG_SPOOL_DIR", dir.path())
            .env("EYEGO_TEST_USER", format!("run-{run}"))
            .stdout(Stdio::null())
            .spawn()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if is_away {
            server.kill()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        program.kill()?;
        program.wait()?;
        spooled.extend(ids_in_spool(dir.path())?);
        if is_away {
            server.restart().await?;
        }
    }
    ensure!(spooled.len() > 1000, "only {} events were in the spool", spooled.len());

    let client = client.spool_dir(dir.path()).build()?;
    let report = client.flush_within(PATIENCE).await;
    let stats = &report.stats;
    ensure!(report.all_settled() && stats.is_balanced(), "{report:?}");
    ensure!(stats.recovered == stats.accepted && stats.delivered > 0, "{report:?}");
    // A write that a kill cut short was never in the spool.
    ensure!(stats.lost.total() == stats.lost.get(LossReason::Damaged), "{report:?}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut ids = BTreeSet::new();
        for run in 0..RUNS {
            let logs = stored(&client, &format!("run-{run}"), 1).await?;
            let numbers: BTreeSet<_> = logs.iter().map(|log| log.metadata.as_json()).collect();
            ensure!(numbers.len() == logs.len(), "each once");
            ids.extend(logs.iter().map(|log| log.id.to_string()));
        }
        let missing = spooled.difference(&ids).count();
        if missing == 0 {
            break;
        }
        let known = spooled.len();
        ensure!(tokio::time::Instant::now() < deadline, "{missing} of {known} are not stored");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(client.shutdown().await.all_settled());
    Ok(())
}
