//! `eyego-log-server erase` and `eyego-log-server erasures`.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::Target;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Names the user to erase.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct EraseArgs {
    /// Id of the user.
    pub user_id: String,
}

/// Selects erasures.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct ErasuresArgs {
    /// Id of an erasure. Without it, the latest erasures are listed.
    pub id: Option<String>,
}

impl EraseArgs {
    /// Requests the erasure from the server at `target` and prints its
    /// response.
    ///
    /// # Errors
    /// Returns an error with the server's message if it refuses, or if it cannot
    /// be reached.
    pub(super) fn run(&self, target: &Target) -> anyhow::Result<()> {
        let user_id = utf8_percent_encode(&self.user_id, NON_ALPHANUMERIC);
        print(target, "DELETE", &format!("/api/v1/users/{user_id}/logs"))
    }
}

impl ErasuresArgs {
    /// Prints what the server at `target` responds.
    ///
    /// # Errors
    /// Returns an error with the server's message if it refuses, or if it cannot
    /// be reached.
    pub(super) fn run(&self, target: &Target) -> anyhow::Result<()> {
        let path = match &self.id {
            Some(id) => format!("/api/v1/erasures/{}", utf8_percent_encode(id, NON_ALPHANUMERIC)),
            None => "/api/v1/erasures?limit=1000".to_owned(),
        };
        print(target, "GET", &path)
    }
}

fn print(target: &Target, method: &str, path: &str) -> anyhow::Result<()> {
    let response = target.request(method, path, "", TIMEOUT)?;
    let json: Value = serde_json::from_str(&response.body)
        .with_context(|| format!("the response is not JSON: {}", response.body))?;
    if !(200..300).contains(&response.status) {
        let message = json["message"].as_str().unwrap_or("no reason given");
        anyhow::bail!("the server responded with status {}: {message}", response.status);
    }
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&json)?)?)
}
