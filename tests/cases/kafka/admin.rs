//! What an operator does to a topic.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use stack::eventually;

use crate::conformance::blocking;
use crate::fixture::TIMEOUT;

/// An operator of one Kafka.
pub(super) struct Operator {
    config: ClientConfig,
    admin: AdminClient<DefaultClientContext>,
}

impl Operator {
    pub(super) fn new(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("allow.auto.create.topics", "false");
        let admin = config.create().unwrap();
        Self { config, admin }
    }

    /// Creates a topic. A deleted topic of the same name may still be there for a moment.
    pub(super) async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        eventually("the topic to be created", TIMEOUT, async || {
            let results = self.admin.create_topics([&new], &AdminOptions::new()).await?;
            results[0].clone().map(drop).map_err(|(_, code)| anyhow::anyhow!("{code}"))
        })
        .await
        .unwrap();
    }

    pub(super) async fn delete(&self, topic: &str) {
        let results = self.admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
        results[0].clone().unwrap();
    }

    /// Replaces all settings of a topic.
    pub(super) async fn alter(&self, topic: &str, settings: &[(&str, &str)]) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let config = settings.iter().fold(config, |config, (name, value)| config.set(name, value));
        let results = self.admin.alter_configs([&config], &AdminOptions::new()).await.unwrap();
        assert!(results[0].is_ok(), "{results:?}");
    }

    pub(super) async fn add_partitions(&self, topic: &str, total: usize) {
        let partitions = NewPartitions::new(topic, total);
        let results = self.admin.create_partitions([&partitions], &AdminOptions::new()).await;
        results.unwrap()[0].clone().unwrap();
    }

    pub(super) async fn setting(&self, topic: &str, name: &str) -> String {
        let topic = ResourceSpecifier::Topic(topic);
        let described = self.admin.describe_configs([&topic], &AdminOptions::new()).await.unwrap();
        described[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
    }

    /// Returns the number of partitions; 0 if there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> usize {
        let consumer: BaseConsumer = self.config.create().unwrap();
        let metadata =
            blocking(|| consumer.fetch_metadata(Some(topic), Duration::from_secs(10))).unwrap();
        metadata.topics()[0].partitions().len()
    }

    /// Lets the broker create the topic, with its own settings.
    pub(super) fn auto_create(&self, topic: &str) -> Result<()> {
        let mut config = self.config.clone();
        config.set("allow.auto.create.topics", "true");
        let consumer: BaseConsumer = config.create()?;
        let metadata = blocking(|| consumer.fetch_metadata(Some(topic), Duration::from_secs(5)))?;
        let found = metadata.topics().first().context("no topic")?;
        ensure!(!found.partitions().is_empty(), "{:?}", found.error());
        Ok(())
    }
}
