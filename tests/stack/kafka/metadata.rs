//! What the brokers say about the cluster. These calls block.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

/// Succeeds when the broker at `address` lists all of `expected` as alive.
pub(super) async fn knows(address: String, expected: &[i32]) -> Result<()> {
    let listed = tokio::task::spawn_blocking(move || alive(&address)).await??;
    ensure!(
        expected.iter().all(|id| listed.contains(id)),
        "brokers {expected:?} are expected, {listed:?} are alive"
    );
    Ok(())
}

fn alive(bootstrap: &str) -> Result<Vec<i32>> {
    let metadata = client(bootstrap)?
        .client()
        .fetch_metadata(None, Duration::from_secs(1))?;
    Ok(metadata
        .brokers()
        .iter()
        .map(rdkafka::metadata::MetadataBroker::id)
        .collect())
}

pub(super) fn partition_leader(bootstrap: &str, topic: &str, partition: i32) -> Result<i32> {
    let metadata = client(bootstrap)?
        .client()
        .fetch_metadata(Some(topic), Duration::from_secs(10))?;
    metadata
        .topics()
        .iter()
        .flat_map(rdkafka::metadata::MetadataTopic::partitions)
        .find(|candidate| candidate.id() == partition)
        .map(rdkafka::metadata::MetadataPartition::leader)
        .with_context(|| format!("there is no partition {partition} of {topic}"))
}

fn client(bootstrap: &str) -> Result<BaseProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "200")
        .set("allow.auto.create.topics", "false")
        .create()?)
}
