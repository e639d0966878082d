//! Changes to the topic under running servers, as an operator makes them.

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;

use super::recovery::KAFKA_TIMEOUT;

/// The settings of the topic that the servers created. An alteration replaces all of them.
const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("min.insync.replicas", "2"),
    ("unclean.leader.election.enable", "false"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
];

const PARTITIONS: i32 = 6;
const REPLICATION: i32 = 3;

/// Sets the size limit of the topic.
pub(super) async fn limit_messages(bootstrap: &str, topic: &str, bytes: usize) -> Result<()> {
    let bytes = bytes.to_string();
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
    let config = SETTINGS.iter().fold(config, |config, (name, value)| config.set(name, value));
    let results = admin(bootstrap)?.alter_configs([&config], &options()).await?;
    match results.into_iter().next() {
        Some(Err((_, code))) => Err(anyhow!("cannot limit the topic's messages: {code}")),
        _ => Ok(()),
    }
}

/// Adds a partition to the topic.
pub(super) async fn add_partition(bootstrap: &str, topic: &str) -> Result<()> {
    let (brokers, name) = (bootstrap.to_owned(), topic.to_owned());
    let partitions = tokio::task::spawn_blocking(move || count_partitions(&brokers, &name));
    let more = NewPartitions::new(topic, partitions.await?? + 1);
    let results = admin(bootstrap)?.create_partitions([&more], &options()).await?;
    match results.into_iter().next() {
        Some(Err((_, code))) => Err(anyhow!("cannot add a partition: {code}")),
        _ => Ok(()),
    }
}

/// Deletes the topic.
pub(super) async fn delete(bootstrap: &str, topic: &str) -> Result<()> {
    let results = admin(bootstrap)?.delete_topics(&[topic], &options()).await?;
    match results.into_iter().next() {
        Some(Err((_, code))) => Err(anyhow!("cannot delete the topic: {code}")),
        _ => Ok(()),
    }
}

/// Creates the topic as the servers do. Succeeds if a server was faster.
pub(super) async fn create(bootstrap: &str, topic: &str) -> Result<()> {
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(REPLICATION));
    let new = SETTINGS.iter().fold(new, |new, (name, value)| new.set(name, value));
    let results = admin(bootstrap)?.create_topics([&new], &options()).await?;
    match results.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            Err(anyhow!("cannot create the topic: {code}"))
        }
        _ => Ok(()),
    }
}

fn count_partitions(bootstrap: &str, topic: &str) -> Result<usize> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT)?;
    Ok(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", bootstrap).create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(KAFKA_TIMEOUT)).operation_timeout(Some(KAFKA_TIMEOUT))
}
