//! The command line: subcommands and the options shared by all of them.

mod client;
mod dead_letters;
mod health;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use self::dead_letters::{DeadLettersCommand, ListArgs, ReplayArgs};
use crate::config::{Config, ConfigError, Options};
use crate::{app, telemetry};

/// Receives user activity over HTTP, queues it durably, stores it exactly once
/// and serves queries.
///
/// Without Kafka and MongoDB it runs on an embedded queue and store. Set Kafka's
/// brokers and MongoDB's URI to run on those instead.
#[derive(Debug, Parser)]
#[command(version, name = "eyego-log-server", args_conflicts_with_subcommands = false)]
pub struct Cli {
    /// Command to run; `serve` if omitted.
    #[command(subcommand)]
    command: Option<Command>,

    /// TOML file with options: the names of the long flags with `_` for `-`, in
    /// the tables `http`, `embedded`, `kafka`, `mongodb`, `spool` and `worker`;
    /// `role`, `log` and `log_format` at the top level.
    #[arg(long = "config", env = "EYEGO_CONFIG", global = true, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Check whether the server at the configured address is ready. Exits with 0
    /// if it is. For container health checks.
    Health,
    /// Work with dead letters through the server at the configured address.
    /// Prints JSON.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or the command fails.
    pub fn run(mut self) -> anyhow::Result<()> {
        let command = self.command.take().unwrap_or(Command::Serve);
        let config = self.config()?;
        match command {
            Command::Serve => {
                telemetry::start(&config)?;
                app::run(config)
            }
            Command::Health => health::check(&config.http.listen),
            Command::DeadLetters(command) => command.run(&config.http.listen),
        }
    }

    /// Returns the configuration that flags, variables and the file amount to.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or a value is invalid.
    pub fn config(self) -> Result<Config, ConfigError> {
        Config::load(self.options, self.file.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
