//! Events from several threads, and what became of them.
//!
//! `load [events] [threads]`, by default 100,000 from 4.

#![expect(clippy::print_stdout, reason = "a program for people")]

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
    // The threads wait for the server rather than lose events.
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
                    // What is lost is counted, and shown at the end.
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
    ensure!(report.stats.is_balanced() && report.stats.accepted == events, "unbalanced");
    ensure!(report.stats.delivered == events, "some were lost");
    Ok(())
}
