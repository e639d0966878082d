//! Kafka.

use std::collections::BTreeMap;
use std::fmt;

use clap::Args;
use serde::Deserialize;

use super::ConfigError;
use super::value::non_empty;

/// Properties that the guarantee rests on.
const OURS: [&str; 16] = [
    "acks",
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

#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[group(skip)]
pub(super) struct Layer {
    /// Kafka's brokers, as host:port, separated by commas; unset: the embedded
    /// queue
    #[arg(
        id = "kafka_brokers",
        long = "kafka-brokers",
        env = "EYEGO_KAFKA_BROKERS",
        global = true,
        value_name = "HOSTS"
    )]
    brokers: Option<String>,

    /// The topic [default: logs-topic]
    #[arg(
        id = "kafka_topic",
        long = "kafka-topic",
        env = "EYEGO_KAFKA_TOPIC",
        global = true,
        value_name = "NAME"
    )]
    topic: Option<String>,

    /// The group of the workers [default: log-processing-group]
    #[arg(
        id = "kafka_group",
        long = "kafka-group",
        env = "EYEGO_KAFKA_GROUP",
        global = true,
        value_name = "NAME"
    )]
    group: Option<String>,

    /// Partitions of the topic, if we create it [default: 6]
    #[arg(
        id = "kafka_partitions",
        long = "kafka-partitions",
        env = "EYEGO_KAFKA_PARTITIONS",
        global = true,
        value_name = "COUNT"
    )]
    partitions: Option<i32>,

    /// Replicas of each partition, if we create the topic [default: the
    /// broker's default]
    #[arg(
        id = "kafka_replication",
        long = "kafka-replication",
        env = "EYEGO_KAFKA_REPLICATION",
        global = true,
        value_name = "COUNT"
    )]
    replication: Option<i32>,

    /// Properties for librdkafka, as key=value, separated by `;` or newlines
    #[arg(
        id = "kafka_properties",
        long = "kafka-properties",
        env = "EYEGO_KAFKA_PROPERTIES",
        hide_env_values = true,
        global = true,
        value_name = "PROPERTIES",
        value_parser = parse_properties
    )]
    properties: Option<Properties>,
}

/// Properties for librdkafka; the values, which may be secrets, are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The properties by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

fn parse_properties(text: &str) -> Result<Properties, String> {
    let mut properties = BTreeMap::new();
    for property in text.split([';', '\n']).map(str::trim).filter(|text| !text.is_empty()) {
        let (name, value) =
            property.split_once('=').ok_or("expected key=value, separated by ; or newlines")?;
        properties.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(Properties(properties))
}

/// Kafka.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// The brokers. `EYEGO_KAFKA_BROKERS`.
    pub brokers: String,
    /// The topic. `EYEGO_KAFKA_TOPIC`, default `logs-topic`.
    pub topic: String,
    /// The group of the workers. `EYEGO_KAFKA_GROUP`, default
    /// `log-processing-group`.
    pub group: String,
    /// Partitions of a topic that we create. `EYEGO_KAFKA_PARTITIONS`,
    /// default 6.
    pub partitions: i32,
    /// Replicas of a topic that we create. `EYEGO_KAFKA_REPLICATION`, default
    /// the broker's.
    pub replication: Option<i32>,
    /// Properties for librdkafka. `EYEGO_KAFKA_PROPERTIES`, default none.
    pub properties: Properties,
}

impl Layer {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            brokers: self.brokers.or(below.brokers),
            topic: self.topic.or(below.topic),
            group: self.group.or(below.group),
            partitions: self.partitions.or(below.partitions),
            replication: self.replication.or(below.replication),
            properties: self.properties.or(below.properties),
        }
    }

    pub(super) fn resolve(self) -> Result<Option<KafkaConfig>, ConfigError> {
        let Some(brokers) = non_empty(self.brokers) else { return Ok(None) };
        let invalid = |message: String| Err(ConfigError::Invalid(message));

        let properties = self.properties.unwrap_or_default();
        if let Some((name, _)) = properties.iter().find(|(name, _)| OURS.contains(name)) {
            return invalid(format!(
                "EYEGO_KAFKA_PROPERTIES must not set {name}: no event is lost or doubled because \
                 of how it is set here"
            ));
        }
        let partitions = self.partitions.unwrap_or(6);
        if partitions < 1 {
            return invalid("EYEGO_KAFKA_PARTITIONS must be at least 1".to_owned());
        }
        if self.replication.is_some_and(|replication| replication < 1) {
            return invalid("EYEGO_KAFKA_REPLICATION must be at least 1".to_owned());
        }
        Ok(Some(KafkaConfig {
            brokers,
            topic: non_empty(self.topic).unwrap_or_else(|| "logs-topic".to_owned()),
            group: non_empty(self.group).unwrap_or_else(|| "log-processing-group".to_owned()),
            partitions,
            replication: self.replication,
            properties,
        }))
    }
}
