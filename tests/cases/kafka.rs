//! The queue on Kafka put to its port's tests, and what only Kafka has: groups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use eyego_log_server::domain::health::PartState;
use eyego_log_server::domain::queue::LogQueue;
use eyego_log_server::domain::record_batch::RecordBatch;
use eyego_log_server::domain::subscription::{Signal, Subscription};
use eyego_log_server::infrastructure::queue::kafka::{KafkaOptions, KafkaQueue};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use stack::kafka::Kafka;

use crate::conformance::queue::QueueFixture;
use crate::conformance::{self, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_keeps_its_promises() {
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
    KafkaOptions {
        brokers: Kafka::shared().await.unwrap().bootstrap().to_owned(),
        topic: stack::unique("topic"),
        group: stack::unique("group"),
        partitions: 3,
        replication: None,
        properties: vec![("statistics.interval.ms".to_owned(), "200".to_owned())],
        max_queued_bytes: 64 << 20,
        max_prefetch_bytes: 16 << 20,
        max_record_bytes: 256 << 10,
        appends: true,
    }
}

/// A queue whose topic is there.
async fn start(options: &KafkaOptions) -> Arc<KafkaQueue> {
    let queue = KafkaQueue::start(options.clone()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut batch = RecordBatch::default();
        // Refused by its size once there is a producer, else because there is none.
        batch.push_encoded(b"k", &vec![b'x'; 1 << 20]);
        let result = queue.append(batch).await.pop().unwrap().unwrap_err();
        if matches!(result, eyego_log_server::domain::queue::AppendError::TooLarge(_)) {
            return queue;
        }
        assert!(Instant::now() < deadline, "{result}: {:?}", queue.health());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
        self.queue.close(Instant::now() + PATIENCE).await;
        self.queue = start(&self.options).await;
    }

    async fn append_null(&self, key: &str) -> bool {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.options.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        let record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.options.topic).key(key);
        producer.send(record, PATIENCE).await.unwrap();
        true
    }
}

/// KafkaJS assigns partitions by a strategy of its own; librdkafka's `roundrobin` alone is as
/// foreign to ours.
fn foreign_member(options: &KafkaOptions) -> BaseConsumer {
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
async fn a_group_held_by_another_kind_of_member_is_joined_when_that_has_left() {
    let options = KafkaOptions { appends: false, ..options().await };
    let queue = KafkaQueue::start(KafkaOptions { appends: true, ..options.clone() }).unwrap();
    let worker = KafkaQueue::start(options.clone()).unwrap();
    let (stop_foreign, is_stopped) = std::sync::mpsc::channel::<()>();
    let member = options.clone();
    let foreign = std::thread::spawn(move || {
        let consumer = foreign_member(&member);
        while is_stopped.try_recv().is_err() {
            let _ = consumer.poll(Duration::from_millis(100));
        }
    });
    until("the foreign member holds the group", || {
        let probe: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &options.brokers).create().unwrap();
        // The coordinator of a new broker may still be loading.
        let groups = probe.fetch_group_list(Some(&options.group), PATIENCE);
        groups.is_ok_and(|list| list.groups().iter().any(|group| group.state() == "Stable"))
    })
    .await;

    let mut subscription = worker.subscribe().unwrap();
    let mut reason = String::new();
    let is_refused = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let _ = subscription
                .poll(Duration::from_millis(100), &mut |_| std::ops::ControlFlow::Continue(()));
            if let PartState::Down(why) = worker.health().state {
                reason = why;
                if reason.contains("joining when they have left") {
                    return (true, reason, subscription, worker);
                }
            }
        }
        (false, reason, subscription, worker)
    });
    let (is_refused, reason, mut subscription, worker) = is_refused.await.unwrap();
    assert!(is_refused, "{reason}");

    stop_foreign.send(()).unwrap();
    foreign.join().unwrap();
    let joined = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + PATIENCE * 2;
        while Instant::now() < deadline {
            let signal = subscription
                .poll(Duration::from_millis(100), &mut |_| std::ops::ControlFlow::Continue(()));
            if let Ok(Signal::Assigned(partitions)) = signal {
                subscription.close();
                return partitions.len();
            }
        }
        0
    });
    assert_eq!(joined.await.unwrap(), 3);
    assert!(worker.health().state.is_up());
    queue.close(Instant::now() + PATIENCE).await;
}

/// Polls each of these once; answers the partitions of what was delivered, and the signals.
fn turn(members: &mut [&mut dyn Subscription]) -> (Vec<i32>, Vec<Signal>) {
    let (mut delivered, mut signals) = (Vec::new(), Vec::new());
    for member in members {
        let signal = member.poll(Duration::from_millis(50), &mut |record| {
            delivered.push(record.partition);
            std::ops::ControlFlow::Continue(())
        });
        if matches!(signal, Ok(Signal::Revoked(..) | Signal::Lost(_))) {
            member.release();
        }
        signals.extend(signal);
    }
    (delivered, signals)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_when_it_went_flows_when_it_comes_back() {
    let options = options().await;
    let queue = start(&options).await;
    let other = KafkaQueue::start(KafkaOptions { appends: false, ..options.clone() }).unwrap();
    let mut first = queue.subscribe().unwrap();
    let mut second = other.subscribe().unwrap();
    let deadline = Instant::now() + PATIENCE * 2;
    conformance::blocking(|| {
        let is_assigned =
            |signal: &Signal| matches!(signal, Signal::Assigned(list) if !list.is_empty());
        let is_revoked = |signal: &Signal| matches!(signal, Signal::Revoked(..));
        while !turn(&mut [&mut *first]).1.iter().any(is_assigned) {
            assert!(Instant::now() < deadline, "never assigned");
        }
        first.pause().unwrap();
        while !turn(&mut [&mut *first, &mut *second]).1.iter().any(is_revoked) {
            assert!(Instant::now() < deadline, "never revoked");
        }
        first.resume().unwrap();
        second.close();
        while !turn(&mut [&mut *first]).1.iter().any(is_assigned) {
            assert!(Instant::now() < deadline, "never assigned again");
        }
    });
    let mut batch = RecordBatch::default();
    for n in 0..60 {
        batch.push_encoded(format!("k{n}").as_bytes(), b"{}");
    }
    assert!(queue.append(batch).await.iter().all(Result::is_ok));
    conformance::blocking(|| {
        let deadline = Instant::now() + PATIENCE;
        let mut partitions = std::collections::HashSet::new();
        while partitions.len() < 3 {
            partitions.extend(turn(&mut [&mut *first]).0);
            assert!(Instant::now() < deadline, "only these flow: {partitions:?}");
        }
        first.close();
    });
    queue.close(Instant::now() + PATIENCE).await;
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
