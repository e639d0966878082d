//! The SDK against the real server: written, read back, and through the
//! server's death.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eyego_log_client::{Builder, Client, Event, LossReason, Order, Overflow};
use serde_json::json;
use stack::server::Server;

const PATIENCE: Duration = Duration::from_secs(60);

async fn start() -> Result<(Server, Builder)> {
    let server = Server::builder().start().await?;
    server.wait_ready(Duration::from_secs(10)).await?;
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
        let mut stream = client.logs().user(user).order(Order::Ascending).limit(1000).stream();
        while let Some(log) = stream.next().await {
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
async fn what_is_logged_can_be_read_back() -> Result<()> {
    let (_server, client) = start().await?;
    let client = client.build()?;
    let metadata = json!({"page": "home", "cart": {"items": 2, "sum": 1.5}, "a.b": [null, "ü\0"]});
    let id = client.send(Event::new("ada", "CLICK").metadata(&metadata)).await?;
    for n in 0..2500 {
        client.log(Event::new("ada", "VIEW").metadata(json!({"n": n})))?;
    }
    ensure!(client.flush_within(PATIENCE).await.is_complete());
    let logs = stored(&client, "ada", 2501).await?;
    ensure!(logs.len() == 2501);
    ensure!(logs[0].id == id && logs[0].metadata.to_map() == *metadata.as_object().unwrap());

    let log = client.logs().get(id).await?.context("not there")?;
    ensure!(log.action.as_str() == "CLICK");
    let page = client.logs().user("ada").metadata("cart.items", 2).action("CLICK").fetch().await?;
    ensure!(page.data.len() == 1 && page.data[0] == log && page.next_cursor.is_none());
    let page = client.logs().from(logs[0].timestamp).limit(7).fetch().await?;
    ensure!(page.data.len() == 7 && page.next_cursor.is_some());
    let deep = client.logs().page(5000).fetch().await.unwrap_err();
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

/// The server is killed, and restarted, while eight threads log: each event is
/// stored once or counted as lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing_that_is_not_counted() -> Result<()> {
    const THREADS: usize = 8;
    const EVENTS: usize = 5000;

    let (server, client) = start().await?;
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
    ensure!(report.is_complete() && stats.is_balanced(), "{report:?}");
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
    ensure!(client.shutdown().await.is_complete());
    Ok(())
}
