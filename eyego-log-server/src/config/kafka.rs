//! Options of Kafka.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::value::{non_empty, number};
use super::{ConfigError, secret_file};

/// Properties that the delivery guarantee depends on; the server sets them.
const RESERVED_PROPERTIES: [&str; 17] = [
    "acks",
    "allow.auto.create.topics",
    "request.required.acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "transactional.id",
];

/// Kafka as the queue. The server uses Kafka if `brokers` is set.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaConfig {
    /// Kafka brokers as host:port, separated by commas [default: none, the
    /// embedded queue is used]
    #[arg(
        id = "kafka_brokers",
        long = "kafka-brokers",
        env = "EYEGO_KAFKA_BROKERS",
        value_name = "HOSTS",
        value_parser = parse_brokers
    )]
    pub brokers: Option<String>,

    /// Topic that holds the queued events.
    #[arg(
        id = "kafka_topic",
        long = "kafka-topic",
        env = "EYEGO_KAFKA_TOPIC",
        default_value = "logs-topic",
        value_name = "NAME",
        value_parser = parse_topic
    )]
    pub topic: String,

    /// Consumer group of the workers.
    #[arg(
        id = "kafka_group",
        long = "kafka-group",
        env = "EYEGO_KAFKA_GROUP",
        default_value = "log-processing-group",
        value_name = "NAME",
        value_parser = non_empty
    )]
    pub group: String,

    /// Number of partitions, used when the server creates the topic.
    #[arg(
        id = "kafka_partitions",
        long = "kafka-partitions",
        env = "EYEGO_KAFKA_PARTITIONS",
        default_value = "3",
        value_name = "COUNT",
        value_parser = number::<i32>(1)
    )]
    pub partitions: i32,

    /// Replication factor, used when the server creates the topic [default: the
    /// broker's]
    #[arg(
        id = "kafka_replication",
        long = "kafka-replication",
        env = "EYEGO_KAFKA_REPLICATION",
        value_name = "COUNT",
        value_parser = number::<i32>(1)
    )]
    pub replication: Option<i32>,

    /// Properties passed to librdkafka, except those that the delivery guarantee
    /// depends on. In the configuration file: a table [default: none]
    #[arg(
        id = "kafka_properties",
        long = "kafka-properties",
        env = "EYEGO_KAFKA_PROPERTIES",
        hide_env_values = true,
        value_name = "PROPERTIES",
        value_parser = Properties::parse
    )]
    pub properties: Option<Properties>,

    /// File that contains properties for librdkafka, instead of
    /// `kafka-properties` [default: none]
    #[arg(
        id = "kafka_properties_file",
        long = "kafka-properties-file",
        env = "EYEGO_KAFKA_PROPERTIES_FILE",
        value_name = "FILE"
    )]
    properties_file: Option<PathBuf>,
}

impl KafkaConfig {
    pub(super) fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let (given, file) = (self.properties.take(), self.properties_file.as_deref());
        let parse = Properties::parse;
        self.properties = secret_file::read("EYEGO_KAFKA_PROPERTIES", given, file, parse)?;
        Ok(())
    }
}

/// Accepts hosts, each with an optional protocol and port, as librdkafka does.
fn parse_brokers(text: &str) -> Result<String, String> {
    for broker in text.split(',').map(str::trim) {
        if !is_broker(broker) {
            return Err(format!("expected host:port, separated by commas, not `{broker}`"));
        }
    }
    Ok(text.to_owned())
}

fn is_broker(text: &str) -> bool {
    let address = match text.split_once("://") {
        Some((protocol, address)) => {
            let protocols = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
            if !protocols.contains(&protocol.to_ascii_lowercase().as_str()) {
                return false;
            }
            address
        }
        None => text,
    };
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or_default())),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let is_host = !host.is_empty() && !host.contains(['/', ' ', '@']);
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Accepts what Kafka accepts as the name of a topic.
fn parse_topic(text: &str) -> Result<String, String> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.chars().all(is_valid) && (1..=249).contains(&text.len()) && !matches!(text, "." | "..")
    {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 249 letters, digits, `.`, `_` or `-`".to_owned())
}

/// Properties passed to librdkafka. `Debug` hides the values, which may be
/// secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Parses a JSON object, or pairs such as `linger.ms=5;compression.type=lz4`.
    fn parse(text: &str) -> Result<Self, String> {
        let pairs = if text.trim_start().starts_with('{') {
            // The error of serde_json can quote a value.
            serde_json::from_str(text).map_err(|error| {
                let (line, column) = (error.line(), error.column());
                format!("expected a JSON object with strings: line {line}, column {column}")
            })?
        } else {
            parse_pairs(text)?
        };
        match pairs.keys().find(|name| RESERVED_PROPERTIES.contains(&name.as_str())) {
            Some(name) => Err(format!(
                "must not set {name}: the delivery guarantee depends on the server's own value"
            )),
            None => Ok(Self(pairs)),
        }
    }

    /// Returns the names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

fn parse_pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    text.split([';', '\n'])
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(
                "expected name=value pairs, separated by `;` or newlines, or a JSON object",
            )?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}
