//! Counts the stored events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eyego_log_client::{Client, Event, ExportFormat};
use futures_util::StreamExt;

use crate::eventually;

/// The action of an event that is not one of the program's.
const MARKER: &str = "MARKER";

/// Waits until everything that was queued is stored, and returns the number of different events.
///
/// # Errors
/// Returns an error if an event is stored twice or was never logged, or if fewer than `delivered` are
/// stored when `timeout` passes.
pub(super) async fn wait_and_count(
    url: &str,
    delivered: u64,
    events: u32,
    timeout: Duration,
) -> Result<u64> {
    let client = Client::builder(url).request_timeout(Duration::from_secs(30)).build()?;
    let marker = client.send(Event::new("client-kill", MARKER)).await?;
    eventually("an event that was sent last to be stored", timeout, async || {
        client.query().get(marker).await?.context("it is not stored")
    })
    .await?;
    let stored = eventually("all delivered events to be stored", timeout, async || {
        let stored = count(&client, events).await?;
        ensure!(stored >= delivered, "{stored} of {delivered}");
        Ok(stored)
    })
    .await?;
    Ok(stored)
}

/// Reads all events, and checks that each was logged and is stored once.
async fn count(client: &Client, events: u32) -> Result<u64> {
    let mut seen = vec![false; events as usize];
    let mut count = 0;
    let mut export =
        client.query().action("CLICK_BUTTON").export(ExportFormat::Ndjson).start().await?;
    let mut rest = Vec::new();
    while let Some(piece) = export.next().await {
        rest.extend_from_slice(&piece?);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &rest) {
            let n = number(&rest[start..end])?;
            let seen = seen.get_mut(n as usize).with_context(|| format!("{n} was not logged"))?;
            ensure!(!std::mem::replace(seen, true), "event {n} is stored twice");
            count += 1;
            start = end + 1;
        }
        rest.drain(..start);
    }
    ensure!(rest.is_empty(), "the export ends within a line");
    Ok(count)
}

/// Returns the number of an event: the last four bytes of its id, which is the first member.
fn number(line: &[u8]) -> Result<u32> {
    let digits = line.strip_prefix(br#"{"id":""#).and_then(|line| line.get(16..24));
    let digits = std::str::from_utf8(digits.context("a line without an id")?)?;
    Ok(u32::from_str_radix(digits, 16)?)
}
