//! Logs many events from several threads and prints how long it took.
//!
//! Usage: `load [events] [threads]`. Defaults to 100,000 events from 4 threads.

#![expect(clippy::print_stdout, reason = "prints for its user")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use eyego_log_client::{ClientBuilder, Event, Overflow};
use serde::Serialize;

#[derive(Serialize)]
struct Metadata {
    page: &'static str,
    browser: &'static str,
    n: u64,
    ratio: f64,
    tags: [&'static str; 2],
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().map_or(Ok(100_000), |text| text.parse())?;
    let threads: u64 = args.next().map_or(Ok(4), |text| text.parse())?;
    // The threads block when the buffer is full, so that no event is lost.
    let client = ClientBuilder::from_env()?
        .overflow(Overflow::Block(Duration::from_secs(60)))
        .delivery_timeout(Duration::from_secs(600))
        .build()?;

    let begin = Instant::now();
    let logging: Vec<_> = (0..threads)
        .map(|thread| {
            let client = client.clone();
            let first = events * thread / threads;
            let end = events * (thread + 1) / threads;
            tokio::task::spawn_blocking(move || {
                for n in first..end {
                    let metadata = Metadata {
                        page: "home",
                        browser: "chrome",
                        n,
                        ratio: 0.75,
                        tags: ["a", "b"],
                    };
                    // Lost events are counted and reported below.
                    let _ = client.log(Event::new("load", "CLICK_BUTTON").metadata(metadata));
                }
            })
        })
        .collect();
    for thread in logging {
        thread.await?;
    }
    let logged = begin.elapsed();
    let report = client.shutdown_within(Duration::from_secs(120)).await;
    println!("logged in {logged:.2?}, delivered in {:.2?}: {report:#?}", begin.elapsed());
    ensure!(
        report.stats.is_balanced() && report.stats.accepted == events,
        "the counts do not balance"
    );
    ensure!(report.stats.delivered == events, "events were lost");
    Ok(())
}
