//! What must be so again once the faults are over: nothing waits, a fresh event flows, and memory
//! and open files are back.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use super::world::World;
use crate::server::Server;

const KAFKA_PATIENCE: Duration = Duration::from_secs(10);
/// Within this a fresh event is stored.
const FRESH: Duration = Duration::from_secs(2);
/// Enough users for each of the six partitions to have some.
const PROBES: usize = 24;
/// What a process may have more than when it was fresh. Measured: 4 to 13 MiB, at the end of a million
/// events; while it works off a backlog a worker has 140 to 170.
const MEMORY_ALLOWANCE: u64 = 48 << 20;
/// In which memory and connections are given back.
const GIVEN_BACK: Duration = Duration::from_secs(60);
/// A driver keeps up to ten connections to each of three mongods, more under load than at its start.
const FILES_ALLOWANCE: u64 = 40;

/// Records that the group has not committed.
pub(super) async fn lag(world: &World) -> Result<i64> {
    let names = &world.names;
    lag_of(world.kafka.bootstrap().to_owned(), names.topic.clone(), names.group.clone()).await
}

/// Records of a topic that a group has not committed.
pub(super) async fn lag_of(bootstrap: String, topic: String, group: String) -> Result<i64> {
    tokio::task::spawn_blocking(move || look_at_lag(&bootstrap, &topic, &group)).await?
}

fn look_at_lag(bootstrap: &str, topic: &str, group: &str) -> Result<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", group).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_PATIENCE)?;
    let partitions = metadata.topics().first().context("no topic")?.partitions();
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition.id());
    }
    let committed = consumer.committed_offsets(list, KAFKA_PATIENCE)?;
    let mut lag = 0;
    for element in committed.elements() {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), KAFKA_PATIENCE)?;
        let next = match element.offset() {
            Offset::Offset(next) => next,
            _ => low,
        };
        lag += high - next;
    }
    Ok(lag)
}

/// Records that wait in the apis' spools.
pub(super) async fn spooled(world: &World) -> Result<i64> {
    let mut waiting = 0;
    for api in &world.apis {
        // Absent where there is no spool.
        waiting += api.server.sample("eyego_spool_records").await?.unwrap_or(0);
    }
    Ok(waiting)
}

/// Waits until the spools are empty and everything in the topic is settled and committed.
pub(super) async fn drained(world: &World, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        // In this order: what leaves a spool is in the topic.
        let behind: Result<i64> = async { Ok(spooled(world).await? + lag(world).await?) }.await;
        if matches!(behind, Ok(0)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let behind = behind?;
            anyhow::bail!(
                "after {patience:?} still {behind} records wait in a spool or are not committed"
            );
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Sends fresh events, one after the other, and complains of each that is not stored in time.
/// Answers their ids, and how long the slowest took.
pub(super) async fn probe(world: &World, ledger: &Ledger) -> Result<(Vec<String>, Duration)> {
    let client = reqwest::Client::builder().timeout(FRESH * 10).build()?;
    let (mut ids, mut slowest) = (Vec::new(), Duration::ZERO);
    for n in 0..PROBES {
        let api = &world.apis[n % world.apis.len()].server;
        let url =
            format!("{}/api/v1/logs?wait=stored&timeout={}ms", api.base_url(), FRESH.as_millis());
        let event = json!({"userId": format!("probe-{n}"), "action": "PROBE"});
        let began = Instant::now();
        let answer = client.post(url).json(&event).send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        slowest = slowest.max(began.elapsed());
        if status != 200 || began.elapsed() > FRESH {
            let took = began.elapsed();
            ledger.complain(format!("a fresh event is answered {status} after {took:?}: {body}"));
        }
        if let Some(id) = body["id"].as_str().filter(|_| status < 300) {
            ids.push(id.to_owned());
        }
    }
    Ok((ids, slowest))
}

/// What a process occupies.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    name: String,
    memory: u64,
    files: u64,
}

/// Waits until each process is about as it was before; fresh events flow all the while.
/// Complains of each that is not in time. Answers how they are, and adds the ids of the probes to the
/// others.
pub(super) async fn released(
    world: &World,
    before: &[Usage],
    ledger: &Ledger,
    probes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let deadline = Instant::now() + GIVEN_BACK;
    loop {
        probes.extend(probe(world, ledger).await?.0);
        let (lines, complaints) = compare(before, &usage(world)?);
        if complaints.is_empty() || Instant::now() >= deadline {
            complaints.into_iter().for_each(|complaint| ledger.complain(complaint));
            return Ok(lines);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

pub(super) fn usage(world: &World) -> Result<Vec<Usage>> {
    let of = |(name, server): (String, &Server)| {
        Ok(Usage { name, memory: server.rss_bytes()?, files: server.open_files()? })
    };
    world.servers().map(of).collect()
}

/// How each process is, and of which it is to be complained.
fn compare(before: &[Usage], after: &[Usage]) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut complaints) = (Vec::new(), Vec::new());
    for (was, is) in before.iter().zip(after) {
        let line = format!(
            "{}: {} MiB, was {}; {} open files, was {}",
            is.name,
            is.memory >> 20,
            was.memory >> 20,
            is.files,
            was.files
        );
        let has_grown = is.memory > was.memory + MEMORY_ALLOWANCE;
        if has_grown || is.files > was.files + FILES_ALLOWANCE {
            complaints.push(format!("not given back: {line}"));
        }
        lines.push(line);
    }
    (lines, complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_complained_of() {
        let usage = |memory, files| Usage { name: "api 0".to_owned(), memory, files };
        let before = [usage(10 << 20, 30)];
        for (after, is_fine) in [
            (usage(20 << 20, 40), true),
            (usage(200 << 20, 30), false),
            (usage(10 << 20, 100), false),
        ] {
            let (lines, complaints) = compare(&before, &[after]);
            assert_eq!((lines.len(), complaints.is_empty()), (1, is_fine));
        }
    }
}
