//! Follows the events of a user as they are stored.
//!
//! Usage: `tail [events]`. Ends after this many events. Defaults to 5.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints for its user")]

use std::time::Duration;

use anyhow::Result;
use eyego_log_client::{Client, Event, TailItem};

const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let mut left: u32 = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let client = Client::from_env()?;
    // Two of the events are stored before the tail begins.
    for n in 0..2 {
        client.send_stored(Event::new("walker-1", "STEP").field("n", n), TIMEOUT).await?;
    }
    let mut tail = client.query().user("walker-1").tail().last(2);
    for n in 2..left {
        client.log(Event::new("walker-1", "STEP").field("n", n))?;
    }
    while left > 0
        && let Some(item) = tail.next_item().await
    {
        match item? {
            TailItem::Event(entry) => {
                println!("{} {} {}", entry.timestamp, entry.action, entry.metadata.as_json());
                left -= 1;
            }
            TailItem::Skipped(count) => eprintln!("too slow: {count} events were skipped"),
            // The tail continues by itself.
            TailItem::Interrupted(error) => eprintln!("reconnecting: {error}"),
            _ => {}
        }
    }
    Ok(())
}
