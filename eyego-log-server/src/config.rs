//! The configuration. Each option is one field below or in the struct of its
//! concern: the field defines the flag, the environment variable, the key of the
//! configuration file, the default, the accepted values and the documentation.
//!
//! `sources` combines flags, variables, file and defaults;
//! `docs/configuration.md` is generated from the fields.

mod access;
mod embedded;
mod environment;
mod file;
mod http;
mod kafka;
mod mongodb;
mod options;
mod retention;
mod secret_file;
mod sources;
mod spool;
mod value;
mod worker;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub use self::access::{AccessConfig, Auth, Names, TlsConfig};
pub use self::embedded::EmbeddedConfig;
pub use self::http::HttpConfig;
pub use self::kafka::{KafkaConfig, Properties};
pub use self::mongodb::MongoDbConfig;
pub use self::retention::RetentionConfig;
pub(crate) use self::sources::parse;
pub use self::spool::SpoolConfig;
pub use self::value::Secret;
use self::value::log_filter;
pub use self::worker::WorkerConfig;

/// The configuration of a server process.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Config {
    /// Part of the pipeline that this process runs.
    #[arg(long, env = "EYEGO_ROLE", default_value = "all", value_enum)]
    pub role: Role,

    /// Log level (error, warn, info, debug, trace), or directives such as
    /// `info,eyego_log_server=debug`.
    #[arg(
        long,
        env = "EYEGO_LOG",
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter
    )]
    pub log: String,

    /// Format of log lines.
    #[arg(long, env = "EYEGO_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,

    /// HTTP server and ingest limits.
    #[command(flatten)]
    pub http: HttpConfig,

    /// Who may use the server.
    #[command(flatten)]
    pub access: AccessConfig,

    /// TLS for callers.
    #[command(flatten)]
    pub tls: TlsConfig,

    /// Embedded queue and store.
    #[command(flatten)]
    pub embedded: EmbeddedConfig,

    /// Kafka as the queue.
    #[command(flatten)]
    pub kafka: KafkaConfig,

    /// MongoDB as the store.
    #[command(flatten)]
    pub mongodb: MongoDbConfig,

    /// The server spool.
    #[command(flatten)]
    pub spool: SpoolConfig,

    /// The worker.
    #[command(flatten)]
    pub worker: WorkerConfig,

    /// How long events are kept.
    #[command(flatten)]
    pub retention: RetentionConfig,
}

/// Part of the pipeline that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Both `api` and `worker`.
    All,
    /// Accepts events into the queue and serves queries.
    Api,
    /// Stores queued events; serves only health and metrics.
    Worker,
}

impl Role {
    /// Returns whether the process accepts events and serves queries.
    #[must_use]
    pub fn has_api(self) -> bool {
        self != Self::Worker
    }

    /// Returns whether the process stores queued events.
    #[must_use]
    pub fn has_worker(self) -> bool {
        self != Self::Api
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text, coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Error in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is malformed, or asks for help or the version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not valid TOML. Lines of the file, which may
    /// contain secrets, are not quoted.
    #[error(
        "the configuration file {path} is not valid TOML: line {line}, column {column}: {reason}"
    )]
    Syntax {
        /// Path of the file.
        path: PathBuf,
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error in characters, from 1.
        column: usize,
        /// Reason.
        reason: String,
    },
    /// An option has an invalid value, or two options contradict each other.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// Reads the files that hold secrets, then checks the rules that involve more
    /// than one option.
    ///
    /// # Errors
    /// Returns [`ConfigError::Invalid`] if a secret is given twice, the file of a
    /// secret cannot be read or its content is invalid, or two options contradict
    /// each other.
    pub fn resolve(mut self) -> Result<Self, ConfigError> {
        self.kafka.read_secrets()?;
        self.mongodb.read_secrets()?;
        self.validate()?;
        Ok(self)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.http.validate()?;
        self.access.validate(&self.http.listen)?;
        self.tls.validate()?;
        let has_kafka = self.kafka.brokers.is_some();
        let has_mongodb = self.mongodb.uri.is_some();
        if let Some(spool) = &self.spool.dir {
            if !has_kafka {
                return invalid_option(
                    "EYEGO_SPOOL_DIR",
                    "EYEGO_SPOOL_DIR requires EYEGO_KAFKA_BROKERS: the spool buffers events for \
                     Kafka, and the embedded queue needs no buffer",
                );
            }
            if !has_mongodb && *spool == self.embedded.data_dir {
                return invalid_option(
                    "EYEGO_SPOOL_DIR",
                    "EYEGO_SPOOL_DIR must differ from EYEGO_DATA_DIR: the spool and the embedded \
                     store each lock their directory",
                );
            }
        }
        let role = match self.role {
            Role::All => return Ok(()),
            Role::Api => "api",
            Role::Worker => "worker",
        };
        let missing = match (has_kafka, has_mongodb) {
            (true, true) => return Ok(()),
            (false, _) => "EYEGO_KAFKA_BROKERS",
            (_, false) => "EYEGO_MONGODB_URI",
        };
        invalid_option(
            missing,
            &format!(
                "EYEGO_ROLE={role} requires {missing}: the embedded queue and store cannot be \
                 shared between processes; set {missing}, or use EYEGO_ROLE=all"
            ),
        )
    }
}

/// Returns an error whose message is followed by the flag and the file key of the
/// option with this variable.
fn invalid_option(variable: &str, message: &str) -> Result<(), ConfigError> {
    let definitions = options::definitions();
    let option = definitions.iter().find(|o| o.get_env().is_some_and(|name| name == variable));
    let names = option.map(|option| format!(" ({})", file::flag_and_key(option)));
    Err(ConfigError::Invalid(format!("{message}{}", names.unwrap_or_default())))
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
