//! The command line: subcommands and the options shared by all of them.

mod client;
mod dead_letters;
mod erase;
mod health;
mod keys;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::client::Target;
pub use self::dead_letters::{DeadLettersCommand, ListArgs, ReplayArgs};
pub use self::erase::{EraseArgs, ErasuresArgs};
pub use self::keys::{KeysCommand, NewKeyArgs};
use crate::app;
use crate::config::{self, Config, ConfigError};
use crate::telemetry;

/// Time to write the last log lines when the server stops.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// Receives user activity over HTTP, queues it durably, stores it exactly once and
/// serves queries.
///
/// Without Kafka and MongoDB the server uses an embedded queue and store. Set
/// --kafka-brokers and --mongodb-uri to use those instead.
#[derive(Debug, Parser)]
#[command(version, name = "eyego-log-server")]
pub struct Cli {
    /// Command to run; `serve` if omitted.
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve,
    /// Check whether the server at the configured address is ready
    ///
    /// Exits with 0 if it is, for container health checks.
    Health,
    /// Work with dead letters through the server at the configured address
    ///
    /// Prints JSON. If the server has keys, `EYEGO_LOG_API_KEY` or
    /// `EYEGO_LOG_API_KEY_FILE` holds a token with the scope `admin`.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Create and check the keys of callers
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Remove every event of a user that was received until now, through the server
    /// at the configured address
    ///
    /// Prints JSON with the id of the erasure, which runs in the background. If the
    /// server has keys, the token needs the scope `erase`.
    Erase(EraseArgs),
    /// Show erasures, through the server at the configured address
    ///
    /// Prints JSON.
    Erasures(ErasuresArgs),
}

impl Cli {
    /// Parses a command line, whose first argument is the program's name, and
    /// combines it with environment variables and the configuration file.
    ///
    /// # Errors
    /// Returns an error if the command line is malformed or asks for help, the
    /// file cannot be read, or an option is invalid.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, ConfigError> {
        let args: Vec<_> = args.into_iter().collect();
        let matches = config::parse(Self::command(), &args)?;
        let Self { command, config } = Self::from_arg_matches(&matches)?;
        Ok(Self { command, config: config.resolve()? })
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Returns an error if the command fails.
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => {
                let logging = telemetry::start(&config)?;
                let result = app::run(config, &logging);
                logging.flush(LOG_TIMEOUT);
                result
            }
            Command::Health => {
                let operations = config.access.operations_listen.clone();
                let address = operations.unwrap_or_else(|| config.http.listen.clone());
                health::check(&target(&config, address, None))
            }
            Command::DeadLetters(command) => command.run(&api(&config)?),
            Command::Erase(args) => args.run(&api(&config)?),
            Command::Erasures(args) => args.run(&api(&config)?),
            Command::Keys(command) => command.run(config.access.keys_file.as_deref()),
        }
    }
}

/// Returns the server at the configured address, with the token of the caller.
fn api(config: &Config) -> anyhow::Result<Target> {
    Ok(target(config, config.http.listen.clone(), token()?))
}

fn target(config: &Config, address: String, token: Option<String>) -> Target {
    Target { address, certificate: config.tls.tls_cert_file.clone(), token }
}

/// Returns the token for the server, from the variables of the client crate.
fn token() -> anyhow::Result<Option<String>> {
    if let Some(file) = std::env::var_os("EYEGO_LOG_API_KEY_FILE").filter(|file| !file.is_empty()) {
        let text = std::fs::read_to_string(file).context("EYEGO_LOG_API_KEY_FILE")?;
        return Ok(Some(text.trim().to_owned()));
    }
    Ok(std::env::var("EYEGO_LOG_API_KEY").ok().filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_precede_or_follow_the_subcommand() {
        for args in [["health", "--listen", "h:1"], ["--listen", "h:1", "health"]] {
            let args = std::iter::once("eyego-log-server").chain(args);
            let cli = Cli::parse(args.map(Into::into)).unwrap();
            assert_eq!(cli.command, Some(Command::Health));
            assert_eq!(cli.config.http.listen, "h:1");
        }
    }
}
