//! The configuration: flag over variable over file over default.
//!
//! Each concern has a file with two structs: its *layer*, in which everything
//! may be left out (what flags and variables say, and what the TOML file says),
//! and what the layers come to, with every default filled in.

mod embedded;
mod http;
mod kafka;
mod mongodb;
mod spool;
mod value;
mod worker;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;

pub use self::embedded::EmbeddedConfig;
pub use self::http::HttpConfig;
pub use self::kafka::KafkaConfig;
pub use self::mongodb::MongoDbConfig;
pub use self::spool::SpoolConfig;
pub use self::value::Secret;
pub use self::worker::WorkerConfig;

/// All options, each of them optional: one source of configuration (flags and
/// variables, or the file).
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub struct Options {
    /// What this process does [default: all]
    #[arg(long, env = "EYEGO_ROLE", global = true)]
    role: Option<Role>,

    /// What to log: a level, or directives such as `info,eyego_log_server=debug`
    /// [default: info]
    #[arg(long, env = "EYEGO_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,

    /// How to log [default: text]
    #[arg(long, env = "EYEGO_LOG_FORMAT", global = true)]
    log_format: Option<LogFormat>,

    #[command(flatten)]
    http: http::Layer,

    #[command(flatten)]
    embedded: embedded::Layer,

    #[command(flatten)]
    kafka: kafka::Layer,

    #[command(flatten)]
    mongodb: mongodb::Layer,

    #[command(flatten)]
    spool: spool::Layer,

    #[command(flatten)]
    worker: worker::Layer,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Both of the others.
    All,
    /// Takes logs into the queue and answers queries.
    Api,
    /// Takes logs from the queue into the store; serves its health only.
    Worker,
}

impl Role {
    /// Whether it takes logs and answers queries.
    #[must_use]
    pub fn has_api(self) -> bool {
        self != Self::Worker
    }

    /// Whether it stores.
    #[must_use]
    pub fn has_worker(self) -> bool {
        self != Self::Api
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this process does. `EYEGO_ROLE`, default `all`.
    pub role: Role,
    /// What to log. `EYEGO_LOG`, default `info`.
    pub log: String,
    /// How to log. `EYEGO_LOG_FORMAT`, default `text`.
    pub log_format: LogFormat,
    /// HTTP: address, limits, shutdown.
    pub http: HttpConfig,
    /// The embedded queue and store: used where the next two are `None`.
    pub embedded: EmbeddedConfig,
    /// Kafka, if it is the queue.
    pub kafka: Option<KafkaConfig>,
    /// MongoDB, if it is the store.
    pub mongodb: Option<MongoDbConfig>,
    /// The spool before Kafka, if there is to be one.
    pub spool: Option<SpoolConfig>,
    /// The worker.
    pub worker: WorkerConfig,
}

/// Why the configuration is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {path} has a fault: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is out of range, or two contradict each other.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// Combines the options given on the command line or in the environment with
    /// those of the file, if there is one, and fills in the defaults.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or a value is invalid.
    pub fn load(options: Options, file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = file.map(read_file).transpose()?.unwrap_or_default();
        options.over(file).resolve()
    }
}

fn read_file(path: &Path) -> Result<Options, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source: Box::new(source) })
}

impl Options {
    fn over(self, below: Self) -> Self {
        Self {
            role: self.role.or(below.role),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
            http: self.http.over(below.http),
            embedded: self.embedded.over(below.embedded),
            kafka: self.kafka.over(below.kafka),
            mongodb: self.mongodb.over(below.mongodb),
            spool: self.spool.over(below.spool),
            worker: self.worker.over(below.worker),
        }
    }

    fn resolve(self) -> Result<Config, ConfigError> {
        let config = Config {
            role: self.role.unwrap_or(Role::All),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            http: self.http.resolve()?,
            embedded: self.embedded.resolve()?,
            kafka: self.kafka.resolve()?,
            mongodb: self.mongodb.resolve()?,
            spool: self.spool.resolve()?,
            worker: self.worker.resolve()?,
        };
        if config.spool.is_some() && config.kafka.is_none() {
            return Err(ConfigError::Invalid(
                "EYEGO_SPOOL_DIR needs EYEGO_KAFKA_BROKERS: the spool stands in for Kafka, \
                 and the embedded queue is a file already"
                    .to_owned(),
            ));
        }
        if let Some(spool) = &config.spool
            && config.mongodb.is_none()
            && spool.dir == config.embedded.data_dir
        {
            return Err(ConfigError::Invalid(
                "EYEGO_SPOOL_DIR must not be EYEGO_DATA_DIR: each is locked by its owner"
                    .to_owned(),
            ));
        }
        if config.role != Role::All {
            let role = if config.role == Role::Api { "api" } else { "worker" };
            let missing = match (&config.kafka, &config.mongodb) {
                (Some(_), Some(_)) => return Ok(config),
                (None, _) => "EYEGO_KAFKA_BROKERS",
                (_, None) => "EYEGO_MONGODB_URI",
            };
            return Err(ConfigError::Invalid(format!(
                "role {role} needs {missing}: the embedded queue and store are files of one \
                 process, and two roles apart would be two processes (use role all, or set it)"
            )));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn resolve(args: &[&str]) -> Result<Config, ConfigError> {
        Cli::parse_from([&["eyego-log-server"], args].concat()).config()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eyego.toml");
        let text = "log = \"debug\"\n[http]\nlisten = \"127.0.0.1:1\"\nmax_body_bytes = \"1 MiB\"\n\
                    [kafka]\nbrokers = \"k:9092\"\n[kafka.properties]\n\"sasl.password\" = \"secret\"\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let config = resolve(&["--config", path, "--listen", "127.0.0.1:2"]).unwrap();
        assert_eq!(config.http.listen, "127.0.0.1:2");
        assert_eq!(config.http.max_body_bytes, 1 << 20);
        assert_eq!(config.log, "debug");
        assert_eq!(config.role, Role::All);
        let debug = format!("{config:?}");
        assert!(!debug.contains("secret"), "{debug}");
    }

    #[test]
    fn an_unknown_key_of_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eyego.toml");
        std::fs::write(&path, "[http]\nlissten = \"x\"\n").unwrap();
        let error = resolve(&["--config", path.to_str().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("lissten"), "{error}");
    }

    #[test]
    fn the_embedded_parts_do_not_split_into_roles() {
        let error = resolve(&["--role", "worker"]).unwrap_err().to_string();
        assert!(error.contains("EYEGO_KAFKA_BROKERS"), "{error}");
        let error = resolve(&["--role", "api", "--kafka-brokers", "k:9092"]).unwrap_err();
        assert!(error.to_string().contains("EYEGO_MONGODB_URI"), "{error}");
    }

    #[test]
    fn a_spool_stands_before_kafka_in_a_directory_of_its_own() {
        let error = resolve(&["--spool-dir", "s"]).unwrap_err().to_string();
        assert!(error.contains("EYEGO_KAFKA_BROKERS"), "{error}");
        let kafka = ["--kafka-brokers", "k:9092", "--spool-dir", "s"];
        let spool = resolve(&kafka).unwrap().spool.unwrap();
        assert_eq!((spool.dir, spool.max_bytes), (PathBuf::from("s"), 1 << 30));
        let error = resolve(&[&kafka[..], &["--data-dir", "s"]].concat()).unwrap_err();
        assert!(error.to_string().contains("EYEGO_DATA_DIR"), "{error}");
        let error = resolve(&[&kafka[..], &["--spool-max-bytes", "1 KiB"]].concat()).unwrap_err();
        assert!(error.to_string().contains("EYEGO_SPOOL_MAX_BYTES"), "{error}");
    }

    #[test]
    fn properties_that_the_guarantee_rests_on_are_refused() {
        for property in ["acks=1", "enable.idempotence=false", "enable.auto.commit=true"] {
            let error = resolve(&["--kafka-brokers", "k:9092", "--kafka-properties", property]);
            let name = property.split('=').next().unwrap();
            assert!(error.unwrap_err().to_string().contains(name));
        }
        for uri in [
            "mongodb://h/?w=1",
            "mongodb://h/?journal=false",
            "mongodb://h/?readPreference=secondary",
        ] {
            let error = resolve(&["--mongodb-uri", uri]).unwrap_err().to_string();
            assert!(error.contains("EYEGO_MONGODB_URI"), "{error}");
        }
    }
}
