//! Logs events, waits for one of them, reads events back and shuts down.

#![expect(clippy::print_stdout, reason = "prints for its user")]

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

    // Returns immediately. An invalid event is rejected here.
    let click = Click { page: "home", x: 120, y: 48 };
    client.log(Event::new("user-123", "CLICK_BUTTON").metadata(click))?;

    // Returns once the server has stored the event durably in its queue.
    let id = client.send(Event::new("user-123", "LOGOUT")).await?;

    // The event can be read a moment later.
    let mut stored = None;
    for _ in 0..100 {
        stored = client.query().get(id).await?;
        if stored.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(stored.is_some(), "event {id} was not stored in time");

    let page = client.query().user("user-123").limit(5).fetch().await?;
    for entry in &page.data {
        println!("{} {} {}", entry.timestamp, entry.action, entry.metadata.as_json());
    }

    let report = client.shutdown().await;
    ensure!(report.all_delivered(), "{report:?}");
    Ok(())
}
