//! What is stored, read as callers read it: page by page through the API.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::judge::Judge;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Dead letters that are fetched at once.
const AT_ONCE: usize = 8;

pub(super) struct Reader {
    client: reqwest::Client,
    url: String,
}

impl Reader {
    pub(super) fn new(url: String) -> Result<Self> {
        Ok(Self { client: reqwest::Client::builder().timeout(TIMEOUT).build()?, url })
    }

    /// Shows everything that is stored to the judge, oldest first.
    pub(super) async fn show(&self, judge: &mut Judge<'_>) -> Result<()> {
        let mut page = self.get("/api/v1/logs?order=asc&limit=1000").await?;
        loop {
            for log in data(&page)? {
                judge.log(log);
            }
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            let path = format!("/api/v1/logs?order=asc&limit=1000&cursor={cursor}");
            page = self.get(&path).await?;
        }
        self.show_letters(judge).await
    }

    async fn show_letters(&self, judge: &mut Judge<'_>) -> Result<()> {
        let mut page = self.get("/api/v1/dead-letters?limit=1000").await?;
        loop {
            let paths = data(&page)?.iter().map(|letter| {
                let id = letter["id"].as_str().context("a dead letter without an id")?;
                Ok(format!("/api/v1/dead-letters/{id}"))
            });
            let letters = stream::iter(paths.collect::<Result<Vec<_>>>()?)
                .map(async |path| self.get(&path).await)
                .buffered(AT_ONCE);
            for letter in letters.try_collect::<Vec<_>>().await? {
                judge.letter(&letter["data"], &raw(&letter["data"])?);
            }
            let Some(cursor) = page["nextCursor"].as_str() else { return Ok(()) };
            page = self.get(&format!("/api/v1/dead-letters?limit=1000&cursor={cursor}")).await?;
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await?;
        let status = answer.status();
        let body = answer.json().await?;
        ensure!(status == 200, "GET {path} was answered {status}: {body}");
        Ok(body)
    }
}

fn data(page: &Value) -> Result<&Vec<Value>> {
    page["data"].as_array().context("a page without data")
}

/// The bytes of a letter.
fn raw(letter: &Value) -> Result<Vec<u8>> {
    if let Some(text) = letter["raw"].as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = letter["rawBase64"].as_str().context("a dead letter without its bytes")?;
    Ok(BASE64_STANDARD.decode(encoded)?)
}
