//! `eyego-log-server keys`.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::app::keys::{self, NewKey};

/// Commands for keys.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum KeysCommand {
    /// Create a token and the entry of its key
    ///
    /// Prints the entry to standard output, so that it can be appended to the keys
    /// file, and the token to standard error. The token is not shown again: the
    /// entry contains only its hash.
    New(NewKeyArgs),
    /// Check a keys file, and list its keys
    Check {
        /// The file; `EYEGO_KEYS_FILE` if omitted.
        file: Option<PathBuf>,
    },
}

/// The fields of a new key.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(skip)]
pub struct NewKeyArgs {
    /// Name of the key in logs and metrics.
    #[arg(long)]
    pub id: String,
    /// What the key allows: ingest, read, erase, admin or metrics. Repeat it for
    /// several.
    #[arg(long = "scope", required = true, value_name = "SCOPE", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Maximum number of events per second, such as 5000/s.
    #[arg(long)]
    pub rate: Option<String>,
    /// Events that may be sent at once [default: one second's worth]
    #[arg(long, value_name = "COUNT")]
    pub burst: Option<NonZeroU32>,
    /// Maximum number of requests at the same time.
    #[arg(long, value_name = "COUNT")]
    pub concurrent: Option<NonZeroU32>,
    /// When the key expires (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
}

impl KeysCommand {
    /// Runs the command. `configured` is the keys file of the configuration.
    ///
    /// # Errors
    /// Returns an error if a field or the file is invalid.
    pub(super) fn run(&self, configured: Option<&Path>) -> anyhow::Result<()> {
        let mut output = std::io::stdout();
        match self {
            Self::New(args) => {
                let (token, entry) = keys::create(&NewKey {
                    id: &args.id,
                    scopes: &args.scopes,
                    rate: args.rate.as_deref(),
                    burst: args.burst,
                    concurrent: args.concurrent,
                    expires: args.expires.as_deref(),
                })?;
                // The file that this is appended to may lack a newline at its end.
                write!(output, "\n{entry}")?;
                output.flush()?;
                writeln!(std::io::stderr(), "{token}")?;
            }
            Self::Check { file } => {
                let file = file.as_deref().or(configured);
                let file = file.context("no keys file: name one, or set EYEGO_KEYS_FILE")?;
                for line in keys::check(file)? {
                    writeln!(output, "{line}")?;
                }
            }
        }
        Ok(())
    }
}
