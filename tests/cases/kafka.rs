//! The queue on Kafka: the conformance suite of its port, and consumer groups.

mod acl;
mod admin;
mod lag;
mod readiness;
mod recreated;
mod rights;
mod settings;
mod size;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use eyego_log_server::domain::health::PartState;
use eyego_log_server::domain::queue::{AppendError, LogQueue};
use eyego_log_server::domain::record_batch::RecordBatch;
use eyego_log_server::domain::subscription::{Signal, Subscription};
use eyego_log_server::infrastructure::queue::kafka::{KafkaOptions, KafkaQueue};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::GroupInfo;
use rdkafka::producer::{FutureProducer, FutureRecord};
use stack::kafka::Kafka;
use stack::{eventually, eventually_blocking};

use crate::conformance;
use crate::conformance::queue::QueueFixture;
use crate::fixture::TIMEOUT;

#[tokio::test(flavor = "multi_thread")]
async fn queue_conforms_to_its_port() {
    conformance::queue::run(4, || async {
        Box::new(KafkaFixture::new().await) as Box<dyn QueueFixture>
    })
    .await;
}

struct KafkaFixture {
    options: KafkaOptions,
    queue: Arc<KafkaQueue>,
}

async fn options() -> KafkaOptions {
    let brokers = Kafka::shared().await.unwrap();
    options_for(brokers.bootstrap(), &stack::unique("topic"), &stack::unique("group"))
}

fn options_for(brokers: &str, topic: &str, group: &str) -> KafkaOptions {
    KafkaOptions { partitions: 3, ..stack::kafka::queue_options(brokers, topic, group) }
}

/// Starts a queue and waits until its topic exists.
async fn start(options: &KafkaOptions) -> Arc<KafkaQueue> {
    let queue = KafkaQueue::start(options.clone()).unwrap();
    eventually("the topic to exist", TIMEOUT, async || {
        let mut batch = RecordBatch::default();
        // Too large once there is a producer; before, the queue is unavailable.
        batch.push_encoded(b"k", &vec![b'x'; 1 << 20]);
        let result = queue.append(batch).await.pop().unwrap().unwrap_err();
        ensure!(matches!(result, AppendError::TooLarge(_)), "{result}: {:?}", queue.health());
        Ok(())
    })
    .await
    .unwrap();
    queue
}

impl KafkaFixture {
    async fn new() -> Self {
        let options = options().await;
        let queue = start(&options).await;
        Self { options, queue }
    }
}

#[async_trait]
impl QueueFixture for KafkaFixture {
    fn queue(&self) -> Arc<dyn LogQueue> {
        Arc::clone(&self.queue) as Arc<dyn LogQueue>
    }

    async fn restart(&mut self) {
        self.queue.close(Instant::now() + TIMEOUT).await;
        self.queue = start(&self.options).await;
    }

    async fn append_null(&self, key: &str) -> bool {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.options.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        let record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.options.topic).key(key);
        producer.send(record, TIMEOUT).await.unwrap();
        true
    }
}

/// Returns a consumer whose assignment strategy is incompatible with the server's, as KafkaJS's is.
fn incompatible_member(options: &KafkaOptions) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .set("group.id", &options.group)
        .set("partition.assignment.strategy", "roundrobin")
        .set("session.timeout.ms", "6000")
        .create()
        .unwrap();
    consumer.subscribe(&[&options.topic]).unwrap();
    consumer
}

#[tokio::test(flavor = "multi_thread")]
async fn group_of_incompatible_members_is_joined_when_they_have_left() {
    let options = KafkaOptions { appends: false, ..options().await };
    let queue = KafkaQueue::start(KafkaOptions { appends: true, ..options.clone() }).unwrap();
    let worker = KafkaQueue::start(options.clone()).unwrap();
    let (stop_incompatible, is_stopped) = std::sync::mpsc::channel::<()>();
    let member = options.clone();
    let incompatible = std::thread::spawn(move || {
        let consumer = incompatible_member(&member);
        while is_stopped.try_recv().is_err() {
            let _ = consumer.poll(Duration::from_millis(100));
        }
    });
    let probe: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &options.brokers).create().unwrap();
    eventually("the group of the incompatible member to be stable", TIMEOUT, async || {
        // The coordinator of a new broker may still be loading.
        let groups = probe.fetch_group_list(Some(&options.group), TIMEOUT)?;
        let states: Vec<_> = groups.groups().iter().map(GroupInfo::state).collect();
        ensure!(states.contains(&"Stable"), "{states:?}");
        Ok(())
    })
    .await
    .unwrap();

    let mut subscription = worker.subscribe().unwrap();
    conformance::blocking(|| {
        eventually_blocking("the worker to report the incompatible member", TIMEOUT, || {
            let _ = poll(&mut *subscription);
            let state = worker.health().state;
            let is_reported = |reason: &str| reason.contains("they have left");
            ensure!(matches!(&state, PartState::Down(reason) if is_reported(reason)), "{state:?}");
            Ok(())
        })
    })
    .unwrap();

    stop_incompatible.send(()).unwrap();
    incompatible.join().unwrap();
    let partitions = conformance::blocking(|| {
        eventually_blocking("the worker to be assigned partitions", TIMEOUT * 2, || {
            match poll(&mut *subscription)? {
                Signal::Assigned(partitions) => Ok(partitions.len()),
                signal => anyhow::bail!("{signal:?}, {:?}", worker.health().state),
            }
        })
    });
    assert_eq!(partitions.unwrap(), 3);
    conformance::blocking(|| subscription.close());
    assert!(worker.health().state.is_up());
    queue.close(Instant::now() + TIMEOUT).await;
}

/// Polls once and ignores the records.
fn poll(subscription: &mut dyn Subscription) -> Result<Signal> {
    subscription
        .poll(Duration::from_millis(100), &mut |_| ControlFlow::Continue(()))
        .context("a poll failed")
}

/// Polls each member once. Returns the partitions of the delivered records, and the signals.
fn poll_all(members: &mut [&mut dyn Subscription]) -> (Vec<i32>, Vec<Signal>) {
    let (mut delivered, mut signals) = (Vec::new(), Vec::new());
    for member in members {
        let signal = member.poll(Duration::from_millis(50), &mut |record| {
            delivered.push(record.partition);
            ControlFlow::Continue(())
        });
        if matches!(signal, Ok(Signal::Revoked(..) | Signal::Lost(_))) {
            member.release();
        }
        signals.extend(signal);
    }
    (delivered, signals)
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_that_was_revoked_while_paused_delivers_again_after_its_return() {
    let options = options().await;
    let queue = start(&options).await;
    let other = KafkaQueue::start(KafkaOptions { appends: false, ..options.clone() }).unwrap();
    let mut first = queue.subscribe().unwrap();
    let mut second = other.subscribe().unwrap();
    let is_assigned =
        |signal: &Signal| matches!(signal, Signal::Assigned(list) if !list.is_empty());
    let is_revoked = |signal: &Signal| matches!(signal, Signal::Revoked(..));
    conformance::blocking(|| {
        eventually_blocking("an assignment", TIMEOUT * 2, || {
            let (_, signals) = poll_all(&mut [&mut *first]);
            ensure!(signals.iter().any(is_assigned), "{signals:?}");
            Ok(())
        })
        .unwrap();
        first.pause().unwrap();
        eventually_blocking("a revocation", TIMEOUT * 2, || {
            let (_, signals) = poll_all(&mut [&mut *first, &mut *second]);
            ensure!(signals.iter().any(is_revoked), "{signals:?}");
            Ok(())
        })
        .unwrap();
        first.resume().unwrap();
        second.close();
        eventually_blocking("another assignment", TIMEOUT * 2, || {
            let (_, signals) = poll_all(&mut [&mut *first]);
            ensure!(signals.iter().any(is_assigned), "{signals:?}");
            Ok(())
        })
        .unwrap();
    });
    let mut batch = RecordBatch::default();
    for n in 0..60 {
        batch.push_encoded(format!("k{n}").as_bytes(), b"{}");
    }
    assert!(queue.append(batch).await.iter().all(Result::is_ok));
    conformance::blocking(|| {
        let mut partitions = HashSet::new();
        eventually_blocking("records of all three partitions", TIMEOUT, || {
            partitions.extend(poll_all(&mut [&mut *first]).0);
            ensure!(partitions.len() == 3, "records of {partitions:?}");
            Ok(())
        })
        .unwrap();
        first.close();
    });
    queue.close(Instant::now() + TIMEOUT).await;
}
