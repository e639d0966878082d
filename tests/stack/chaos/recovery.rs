//! Recovery checks: after the faults, the queue must be drained, fresh events must be stored
//! quickly, and memory and open files must be back to where they were.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eyego_log_core::LogIdGenerator;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ack_log::AckLog;
use super::deployment::Deployment;
use crate::eventually;
use crate::keys::client_with;
use crate::server::Server;

pub(super) const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which a fresh event must be stored.
const FRESH_EVENT: Duration = Duration::from_secs(2);
/// The time until a new topic is noticed and everything before it is stored, while servers fail.
const NEW_TOPIC: Duration = Duration::from_secs(150);
/// Enough users to reach each of the six partitions.
const PROBES: usize = 24;
/// How much more memory a process may use than before the faults. A worker uses 140 to 170 MiB while
/// it catches up, and 4 to 13 MiB more than at its start afterwards.
const MEMORY_ALLOWANCE: u64 = 48 << 20;
/// The time in which memory and connections must be released.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(90);
/// Connections to MongoDB that were opened under load are closed after 30 s. Each probe can use two, and
/// librdkafka keeps a pipe for each broker that it has bootstrapped from again.
const FILES_ALLOWANCE: u64 = 2 * PROBES as u64 + 16;

/// Returns the number of records that the group has not committed.
pub(super) async fn lag(deployment: &Deployment) -> Result<i64> {
    let names = &deployment.names;
    let bootstrap = deployment.kafka.bootstrap().to_owned();
    lag_of(bootstrap, names.topic.clone(), names.group.clone()).await
}

/// Returns the number of records of a topic that a group has not committed.
pub(super) async fn lag_of(bootstrap: String, topic: String, group: String) -> Result<i64> {
    tokio::task::spawn_blocking(move || fetch_lag(&bootstrap, &topic, &group)).await?
}

fn fetch_lag(bootstrap: &str, topic: &str, group: &str) -> Result<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", group).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT)?;
    let partitions = metadata.topics().first().context("no topic")?.partitions();
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition.id());
    }
    let committed = consumer.committed_offsets(list, KAFKA_TIMEOUT)?;
    let mut lag = 0;
    for element in committed.elements() {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), KAFKA_TIMEOUT)?;
        let next = match element.offset() {
            Offset::Offset(next) => next,
            _ => low,
        };
        lag += high - next;
    }
    Ok(lag)
}

/// Returns the number of records in the spool of the API at this base URL; 0 if it has no spool.
pub(super) async fn spooled_records(base_url: &str, token: Option<&str>) -> Result<i64> {
    Ok(crate::server::sample(base_url, "eyego_spool_records", token).await?.unwrap_or(0))
}

/// Returns the number of records in the spools of the APIs.
pub(super) async fn spooled(deployment: &Deployment) -> Result<i64> {
    let mut records = 0;
    for api in &deployment.apis {
        records += spooled_records(&api.server.base_url(), Some(&deployment.token)).await?;
    }
    Ok(records)
}

/// Waits until the spools are empty and everything in the topic is settled and committed.
pub(super) async fn drained(deployment: &Deployment, timeout: Duration) -> Result<()> {
    eventually("the spools to be empty and the topic to be committed", timeout, async || {
        // In this order, because records move from a spool into the topic.
        let (spooled, lag) = (spooled(deployment).await?, lag(deployment).await?);
        ensure!(spooled + lag == 0, "{spooled} records in a spool, {lag} not committed");
        Ok(())
    })
    .await
}

/// Sends fresh events one after the other, and reports each that is not stored in time. Returns
/// their ids and the longest time.
pub(super) async fn probe(
    deployment: &Deployment,
    ack_log: &AckLog,
) -> Result<(Vec<String>, Duration)> {
    let client = client_with(Some(&deployment.token), FRESH_EVENT * 10)?;
    let (mut ids, mut slowest) = (Vec::new(), Duration::ZERO);
    for n in 0..PROBES {
        let base_url = deployment.apis[n % deployment.apis.len()].server.base_url();
        let timeout = FRESH_EVENT.as_millis();
        let url = format!("{base_url}/api/v1/logs?wait=stored&timeout={timeout}ms");
        let event = json!({"userId": format!("probe-{n}"), "action": "PROBE"});
        let began = Instant::now();
        let response = client.post(url).json(&event).send().await?;
        let status = response.status().as_u16();
        let body: Value = response.json().await?;
        let took = began.elapsed();
        slowest = slowest.max(took);
        if status != 200 || took > FRESH_EVENT {
            ack_log.report(format!("a fresh event: status {status} after {took:?}: {body}"));
        }
        if let Some(id) = body["id"].as_str().filter(|_| status < 300) {
            ids.push(id.to_owned());
        }
    }
    Ok((ids, slowest))
}

/// Waits until each API accepts events for every partition and they are stored, after the topic was
/// replaced.
pub(super) async fn used_again(deployment: &Deployment) -> Result<()> {
    let client = client_with(Some(&deployment.token), KAFKA_TIMEOUT)?;
    let ids = LogIdGenerator::new();
    for n in 0..PROBES {
        let base_url = deployment.apis[n % deployment.apis.len()].server.base_url();
        let url = format!("{base_url}/api/v1/logs?wait=stored&timeout=5s");
        let id = ids.generate(std::time::SystemTime::now().into()).to_string();
        let event = json!({"id": id, "userId": format!("probe-{n}"), "action": "PROBE"});
        eventually("the new topic to be used", NEW_TOPIC, async || {
            let status = client.post(&url).json(&event).send().await?.status();
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await?;
        deployment.probes.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
    Ok(())
}

/// The memory and the open files of a process.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    name: String,
    memory: u64,
    files: u64,
}

/// Waits until each process uses about as much as before, while fresh events are sent, and reports
/// each that does not in time. Returns the usage as text, and adds the ids of the fresh events to
/// `probes`.
pub(super) async fn released(
    deployment: &Deployment,
    before: &[Usage],
    ack_log: &AckLog,
    probes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    loop {
        probes.extend(probe(deployment, ack_log).await?.0);
        let (lines, violations) = compare(before, &usage(deployment)?);
        if violations.is_empty() || Instant::now() >= deadline {
            violations.into_iter().for_each(|violation| ack_log.report(violation));
            return Ok(lines);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub(super) fn usage(deployment: &Deployment) -> Result<Vec<Usage>> {
    let of = |(name, server): (String, &Server)| {
        Ok(Usage { name, memory: server.rss_bytes()?, files: server.open_files()? })
    };
    deployment.servers().map(of).collect()
}

/// Returns the usage of each process as text, and the violations.
fn compare(before: &[Usage], after: &[Usage]) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut violations) = (Vec::new(), Vec::new());
    for (before, after) in before.iter().zip(after) {
        let line = format!(
            "{}: {} MiB, {} before; {} open files, {} before",
            after.name,
            after.memory >> 20,
            before.memory >> 20,
            after.files,
            before.files
        );
        let has_grown = after.memory > before.memory + MEMORY_ALLOWANCE;
        if has_grown || after.files > before.files + FILES_ALLOWANCE {
            violations.push(format!("not released: {line}"));
        }
        lines.push(line);
    }
    (lines, violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_a_violation() {
        let usage = |memory, files| Usage { name: "api 0".to_owned(), memory, files };
        let before = [usage(10 << 20, 30)];
        for (after, is_fine) in [
            (usage(20 << 20, 40), true),
            (usage(200 << 20, 30), false),
            (usage(10 << 20, 100), false),
        ] {
            let (lines, violations) = compare(&before, &[after]);
            assert_eq!((lines.len(), violations.is_empty()), (1, is_fine));
        }
    }
}
