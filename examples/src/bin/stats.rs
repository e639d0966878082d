//! Counts the events of the last day by hour and action.

#![expect(clippy::print_stdout, reason = "prints for its user")]

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use eyego_log_client::{Client, Event, Interval, StoreOutcome};

const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env()?;
    for action in ["SIGN_UP", "LOGIN", "LOGIN"] {
        // Returns once the event can be read.
        let outcome = client.send_stored(Event::new("user-123", action), TIMEOUT).await?;
        ensure!(matches!(outcome, StoreOutcome::Stored(_)), "{outcome:?}");
    }

    let now = SystemTime::now() + Duration::from_secs(1);
    let day = client.query().since(now - Duration::from_secs(24 * 3600)).until(now);
    let stats = day.stats().interval(Interval::Hour).by_action().top(5).fetch().await?;
    println!("{} events of {} users", stats.total, stats.users);
    for bucket in stats.buckets.iter().filter(|bucket| bucket.count > 0) {
        println!("{} {:>8} {:?}", bucket.start, bucket.count, bucket.by);
    }
    for value in &stats.top {
        println!("{:>8} {} ({} users)", value.count, value.value, value.users);
    }
    println!("{:>8} other actions", stats.other);
    ensure!(stats.total >= 3, "the events are not counted");
    Ok(())
}
