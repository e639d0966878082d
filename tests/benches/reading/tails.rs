//! Tails of a server process: how late events are, and the memory of many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memchr::memmem;
use stack::load::{Load, post, single_requests};
use stack::server::Server;
use tokio::task::JoinSet;

/// Events per second while the delay is measured, and for how long.
const RATE: u64 = 10_000;
const LOAD: Duration = Duration::from_secs(20);

/// Time without an event after which a tail has received all.
const QUIET: Duration = Duration::from_secs(3);

const MANY: u32 = 1_000;

/// Measures the time from sending an event, and from its storing, until a client has it.
///
/// The time of storing is not visible from outside. Each event is sent before it is stored, so the
/// printed times include the queue and storing itself.
pub(crate) async fn delay(server: &Server) -> Result<()> {
    server.wait_ready(Duration::from_secs(30)).await?;
    let began = Instant::now();
    let tail = reqwest::get(format!("{}/api/v1/logs/tail?action=DELAY", server.base_url())).await?;
    let reading = tokio::spawn(delays(tail.error_for_status()?, began));
    let request = move |_| {
        let sent = began.elapsed().as_micros();
        let event = format!(
            r#"{{"userId":"user-{}","action":"DELAY","metadata":{{"page":"home","browser":"chrome","width":1920,"sent":{sent}}}}}"#,
            sent % 10_000
        );
        post("/api/v1/logs", "application/json", event.as_bytes())
    };
    let load = Load {
        address: server.address(),
        connections: 64,
        duration: LOAD,
        request: Arc::new(request),
        rate: Some(RATE),
    };
    let sent = load.run().await?;
    let mut delays = reading.await??;
    ensure!(
        delays.len() as u64 == sent.accepted,
        "{} of {} events were on the tail",
        delays.len(),
        sent.accepted
    );
    delays.sort_unstable();
    let percentile = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "tail at {:.0} events/s: sent -> received by the reader p50 {:.1?}, p99 {:.1?}, at most {:.1?} \
         (goal of stored -> received: 250 ms); 202 after p50 {:.1?}, p99 {:.1?}",
        sent.rate(),
        percentile(50),
        percentile(99),
        percentile(100),
        sent.percentile(0.5),
        sent.percentile(0.99),
    );
    Ok(())
}

/// Returns the age of each event when it arrives, until none has arrived for a while.
async fn delays(mut tail: reqwest::Response, began: Instant) -> Result<Vec<Duration>> {
    let sent = memmem::Finder::new(b"\"sent\":");
    let (mut received, mut delays) = (Vec::new(), Vec::new());
    let mut has_begun = false;
    loop {
        let chunk = match tokio::time::timeout(QUIET, tail.chunk()).await {
            Ok(chunk) => chunk?.context("the tail ended")?,
            Err(_) if has_begun => return Ok(delays),
            Err(_) => continue,
        };
        let now = began.elapsed();
        received.extend_from_slice(&chunk);
        // Whole messages only.
        let end = memmem::rfind(&received, b"\n\n").map_or(0, |end| end + 2);
        ensure!(memmem::find(&received[..end], b"event: skipped").is_none(), "events were skipped");
        for start in sent.find_iter(&received[..end]) {
            let digits = received[start + 7..].iter().take_while(|byte| byte.is_ascii_digit());
            let micros = digits.fold(0, |micros, digit| micros * 10 + u64::from(digit - b'0'));
            delays.push(now.saturating_sub(Duration::from_micros(micros)));
            has_begun = true;
        }
        received.drain(..end);
    }
}

/// Opens 1,000 tails, a third each of everything, of a user and of a metadata value, and sends events.
pub(crate) async fn memory(builder: stack::server::ServerBuilder) -> Result<()> {
    let server = builder.env("EYEGO_MAX_CONNECTIONS", (MANY + 100).to_string()).start().await?;
    server.wait_ready(Duration::from_secs(30)).await?;
    let load = || Load {
        address: server.address(),
        connections: 8,
        duration: Duration::from_secs(5),
        request: single_requests(),
        rate: Some(200),
    };
    load().run().await?;
    let before = server.rss_bytes()?;
    let mut tails = JoinSet::new();
    for n in 0..MANY {
        let query = ["", "userId=user-77", "metadata.page=home"][n as usize % 3];
        let url = format!("{}/api/v1/logs/tail?{query}", server.base_url());
        // A client each, so that no two tails share a connection.
        let mut tail = reqwest::Client::new().get(url).send().await?.error_for_status()?;
        tails.spawn(async move { while let Ok(Some(_)) = tail.chunk().await {} });
    }
    let idle = server.rss_bytes()?;
    load().run().await?;
    let busy = server.rss_bytes()?;
    let mib = |bytes: u64| bytes.saturating_sub(before) as f64 / f64::from(1 << 20);
    println!(
        "memory of {MANY} tails: {:.1} MiB idle, {:.1} MiB after 1,000 events (goal: 64 MiB)",
        mib(idle),
        mib(busy)
    );
    Ok(())
}
