//! Exports the events of a user as CSV.
//!
//! Usage: `export [file]`. Without a file, the export is printed.

use std::time::Duration;

use anyhow::{Result, ensure};
use eyego_log_client::{Client, Event, ExportFormat, Order, StoreOutcome};

const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::from_env()?;
    for page in ["home", "=prices", "cart"] {
        let event = Event::new("reader-1", "VIEW").field("page", page);
        let outcome = client.send_stored(event, TIMEOUT).await?;
        ensure!(matches!(outcome, StoreOutcome::Stored(_)), "{outcome:?}");
    }

    let query = client.query().user("reader-1").order(Order::Ascending);
    let export = query.export(ExportFormat::Csv).columns(["page"]);
    // An export that ends early is an error, so the bytes are complete.
    let bytes = match std::env::args_os().nth(1) {
        Some(file) => export.save(file).await?,
        None => export.write_to(std::io::stdout()).await?,
    };
    ensure!(bytes > 0, "the export is empty");
    Ok(())
}
