//! The operator's commands about dead letters.

use clap::{Args, Subcommand};

/// What to do with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadLettersCommand {
    /// List what could not be stored and why, the latest failure first.
    List(ListArgs),
    /// Show one letter with its original bytes.
    Show {
        /// The event's id.
        id: String,
    },
    /// Store letters now, under their events' ids. One call works at most
    /// 10000 letters or 20 s: repeat it while `remaining` falls.
    Replay(ReplayArgs),
}

/// Which letters to list.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct ListArgs {
    /// Only those with this code.
    #[arg(long)]
    pub code: Option<String>,
    /// Only those that failed from this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only those that failed before this time.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// How many at most, up to 1000 [default: 10]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u32>,
    /// Go on after an earlier answer's `nextCursor`.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Which letters to store: one of these.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct ReplayArgs {
    /// The letter of this event.
    #[arg(long)]
    pub id: Option<String>,
    /// Those with this code.
    #[arg(long)]
    pub code: Option<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
}
