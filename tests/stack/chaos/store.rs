//! Reads everything that is stored, page by page through the API, as callers do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::oracle::Oracle;
use crate::keys::client_with;

const TIMEOUT: Duration = Duration::from_secs(30);
/// The number of dead letters that are fetched concurrently.
const CONCURRENCY: usize = 8;

pub(super) struct Reader {
    client: reqwest::Client,
    url: String,
}

impl Reader {
    pub(super) fn new(url: String, token: Option<&str>) -> Result<Self> {
        Ok(Self { client: client_with(token, TIMEOUT)?, url })
    }

    /// Passes everything that is stored to the oracle: logs oldest first, then dead letters.
    pub(super) async fn show(&self, oracle: &mut Oracle<'_>) -> Result<()> {
        let mut page = self.get("/api/v1/logs?order=asc&limit=1000").await?;
        loop {
            for log in data(&page)? {
                oracle.log(log);
            }
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            let path = format!("/api/v1/logs?order=asc&limit=1000&cursor={cursor}");
            page = self.get(&path).await?;
        }
        self.show_dead_letters(oracle).await
    }

    async fn show_dead_letters(&self, oracle: &mut Oracle<'_>) -> Result<()> {
        let mut page = self.get("/api/v1/dead-letters?limit=1000").await?;
        loop {
            let paths = data(&page)?.iter().map(|dead_letter| {
                let id = dead_letter["id"].as_str().context("a dead letter has no id")?;
                Ok(format!("/api/v1/dead-letters/{id}"))
            });
            let dead_letters = stream::iter(paths.collect::<Result<Vec<_>>>()?)
                .map(async |path| self.get(&path).await)
                .buffered(CONCURRENCY);
            for dead_letter in dead_letters.try_collect::<Vec<_>>().await? {
                oracle.dead_letter(&dead_letter["data"], &raw(&dead_letter["data"])?);
            }
            let Some(cursor) = page["nextCursor"].as_str() else { return Ok(()) };
            page = self.get(&format!("/api/v1/dead-letters?limit=1000&cursor={cursor}")).await?;
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await?;
        let status = response.status();
        let body = response.json().await?;
        ensure!(status == 200, "GET {path}: status {status}: {body}");
        Ok(body)
    }
}

fn data(page: &Value) -> Result<&Vec<Value>> {
    page["data"].as_array().context("a page has no data")
}

/// Returns the bytes of a dead letter.
fn raw(dead_letter: &Value) -> Result<Vec<u8>> {
    if let Some(text) = dead_letter["raw"].as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = dead_letter["rawBase64"].as_str().context("a dead letter has no bytes")?;
    Ok(BASE64_STANDARD.decode(encoded)?)
}
