//! The cluster's metadata, as the brokers report it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

/// The timeout of a request to a broker of the harness.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The timeout of a request to a Kafka that the harness did not start.
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns an error if no broker responds.
pub(super) async fn responds(bootstrap: String) -> Result<()> {
    tokio::task::spawn_blocking(move || alive(&bootstrap, EXTERNAL_TIMEOUT)).await?.map(drop)
}

/// Returns an error unless the broker at `address` lists all of `expected` as alive.
pub(super) async fn lists(address: String, expected: &[i32]) -> Result<()> {
    let listed = tokio::task::spawn_blocking(move || alive(&address, PROBE_TIMEOUT)).await??;
    ensure!(
        expected.iter().all(|id| listed.contains(id)),
        "expected brokers {expected:?}, but it lists {listed:?}"
    );
    Ok(())
}

fn alive(bootstrap: &str, timeout: Duration) -> Result<Vec<i32>> {
    let metadata = client(bootstrap)?.client().fetch_metadata(None, timeout)?;
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
        .with_context(|| format!("topic {topic} has no partition {partition}"))
}

fn client(bootstrap: &str) -> Result<BaseProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "200")
        .set("allow.auto.create.topics", "false")
        .create()?)
}
