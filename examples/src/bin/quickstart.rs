//! Logging, waiting for one event, reading back, the end.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::time::Duration;

use anyhow::{Result, ensure};
use eyego_log_client::{Client, Event};
use serde::Serialize;

#[derive(Serialize)]
struct Click<'a> {
    page: &'a str,
    x: u32,
    y: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env()?;

    // Returns at once; what is wrong with the event is an error here.
    let click = Click { page: "home", x: 120, y: 48 };
    client.log(Event::new("user-123", "CLICK_BUTTON").metadata(click))?;

    // Returns when the server holds it durably.
    let id = client.send(Event::new("user-123", "LOGOUT")).await?;

    // It is stored a moment later.
    let mut stored = None;
    for _ in 0..100 {
        stored = client.query().get(id).await?;
        if stored.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(stored.is_some(), "the log {id} is not stored yet");

    let page = client.query().user("user-123").limit(5).fetch().await?;
    for log in &page.data {
        println!("{} {} {}", log.timestamp, log.action, log.metadata.as_json());
    }

    let report = client.shutdown().await;
    ensure!(report.all_settled() && report.stats.lost.total() == 0, "{report:?}");
    Ok(())
}
