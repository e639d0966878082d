//! What the brokers say about the cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

/// How long one look at a broker of ours may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long somebody else's Kafka may take to answer.
const FOREIGN_TIMEOUT: Duration = Duration::from_secs(15);

/// Succeeds when any of the brokers answers.
pub(super) async fn answers(bootstrap: String) -> Result<()> {
    tokio::task::spawn_blocking(move || alive(&bootstrap, FOREIGN_TIMEOUT)).await?.map(drop)
}

/// Succeeds when the broker at `address` lists all of `expected` as alive.
pub(super) async fn knows(address: String, expected: &[i32]) -> Result<()> {
    let listed = tokio::task::spawn_blocking(move || alive(&address, PROBE_TIMEOUT)).await??;
    ensure!(
        expected.iter().all(|id| listed.contains(id)),
        "brokers {expected:?} are expected, {listed:?} are alive"
    );
    Ok(())
}

fn alive(bootstrap: &str, patience: Duration) -> Result<Vec<i32>> {
    let metadata = client(bootstrap)?.client().fetch_metadata(None, patience)?;
    Ok(metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect())
}

pub(super) fn partition_leader(bootstrap: &str, topic: &str, partition: i32) -> Result<i32> {
    let metadata =
        client(bootstrap)?.client().fetch_metadata(Some(topic), Duration::from_secs(10))?;
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
