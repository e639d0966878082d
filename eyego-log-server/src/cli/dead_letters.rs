//! `eyego-log-server dead-letters`.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::client::Target;

const PATH: &str = "/api/v1/dead-letters";

/// A replay runs for up to 20 s on the server, which then counts the remaining
/// dead letters.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Commands for dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters with their reasons, the latest failure first.
    List(ListArgs),
    /// Show one dead letter with its original bytes.
    Show {
        /// Id of the event.
        id: String,
    },
    /// Retry storing dead letters, under the ids of their events
    ///
    /// One call processes up to 10,000 dead letters and runs for up to 20 s.
    /// Repeat it while `remaining` decreases.
    Replay(ReplayArgs),
}

/// Selects the dead letters to list.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct ListArgs {
    /// Only dead letters with this code.
    #[arg(long)]
    pub code: Option<String>,
    /// Only failures at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only failures before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Maximum number of dead letters to list, up to 1000 [default: 10]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u32>,
    /// Continue from the `nextCursor` of the previous page.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Selects the dead letters to replay: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct ReplayArgs {
    /// The dead letter of the event with this id.
    #[arg(long)]
    pub id: Option<String>,
    /// All dead letters with this code.
    #[arg(long)]
    pub code: Option<String>,
    /// All dead letters.
    #[arg(long)]
    pub all: bool,
}

impl DeadLettersCommand {
    /// Runs the command against the server at `target` and prints its
    /// response.
    ///
    /// # Errors
    /// Returns an error with the server's message if it refuses, or if it cannot
    /// be reached.
    pub(super) fn run(&self, target: &Target) -> anyhow::Result<()> {
        let (method, path, body) = match self {
            Self::List(list) => ("GET", format!("{PATH}{}", query(list)), None),
            Self::Show { id } => {
                ("GET", format!("{PATH}/{}", utf8_percent_encode(id, NON_ALPHANUMERIC)), None)
            }
            Self::Replay(selection) => {
                ("POST", format!("{PATH}/replay"), Some(selection_body(selection)))
            }
        };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let response = target.request(method, &path, &body, TIMEOUT)?;
        let json: Value = serde_json::from_str(&response.body)
            .with_context(|| format!("the response is not JSON: {}", response.body))?;
        if response.status != 200 {
            let message = json["message"].as_str().unwrap_or("no reason given");
            anyhow::bail!("the server responded with status {}: {message}", response.status);
        }
        Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&json)?)?)
    }
}

fn query(list: &ListArgs) -> String {
    let ListArgs { code, from, to, limit, cursor } = list;
    let limit = limit.map(|limit| limit.to_string());
    let parameters =
        [("code", code), ("from", from), ("to", to), ("limit", &limit), ("cursor", cursor)];
    let given: Vec<_> = parameters
        .into_iter()
        .filter_map(|(name, value)| {
            let value = utf8_percent_encode(value.as_deref()?, NON_ALPHANUMERIC);
            Some(format!("{name}={value}"))
        })
        .collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

fn selection_body(selection: &ReplayArgs) -> Value {
    match selection {
        ReplayArgs { id: Some(id), .. } => json!({ "id": id }),
        ReplayArgs { code: Some(code), .. } => json!({ "code": code }),
        ReplayArgs { all, .. } => json!({ "all": all }),
    }
}
