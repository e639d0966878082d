//! A broker that is killed, frozen, stopped and restarted, and a cluster that loses one.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{Kafka, KafkaOptions};
use crate::{eventually, unique};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);

fn producer(bootstrap: &str, timeout: Duration) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("message.timeout.ms", timeout.as_millis().to_string())
        .set("reconnect.backoff.max.ms", "200")
        .create()
        .unwrap()
}

async fn send(producer: &FutureProducer, topic: &str) -> Result<(), KafkaError> {
    let record = FutureRecord::to(topic).key("k").payload("v");
    producer.send(record, Duration::ZERO).await.map(drop).map_err(|(error, _)| error)
}

async fn send_within(kafka: &Kafka, topic: &str, timeout: Duration) -> Result<(), KafkaError> {
    send(&producer(kafka.bootstrap(), timeout), topic).await
}

async fn count(kafka: &Kafka, topic: &str) -> i64 {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let topic = topic.to_owned();
    let watermarks =
        tokio::task::spawn_blocking(move || consumer.fetch_watermarks(&topic, 0, LONG));
    let (low, high) = watermarks.await.unwrap().unwrap();
    high - low
}

#[tokio::test]
async fn shared_broker_is_started_once() {
    let (one, other) = tokio::try_join!(Kafka::shared(), Kafka::shared()).unwrap();
    assert_eq!(one.bootstrap(), other.bootstrap());
}

#[tokio::test]
async fn broker_keeps_its_data_over_kill_pause_and_stop() {
    let topic = unique("topic");
    let options = KafkaOptions::default().property("num.partitions", "1");
    let kafka = Kafka::prepare(options).await.unwrap();
    assert!(send_within(&kafka, &topic, SHORT).await.is_err(), "it does not run yet");
    let began = Instant::now();
    kafka.up().await.unwrap();
    println!("up after {:?}", began.elapsed());
    send_within(&kafka, &topic, LONG).await.unwrap();

    kafka.kill(0).unwrap();
    assert!(send_within(&kafka, &topic, SHORT).await.is_err(), "it was killed");
    let began = Instant::now();
    kafka.restart(0).await.unwrap();
    println!("restarted after SIGKILL in {:?}", began.elapsed());
    send_within(&kafka, &topic, LONG).await.unwrap();

    kafka.pause(0).unwrap();
    assert!(send_within(&kafka, &topic, SHORT).await.is_err(), "it is frozen");
    kafka.resume(0).unwrap();
    send_within(&kafka, &topic, LONG).await.unwrap();

    let began = Instant::now();
    kafka.stop(0).await.unwrap();
    println!("stopped after {:?}", began.elapsed());
    let began = Instant::now();
    kafka.restart(0).await.unwrap();
    println!("restarted after SIGTERM in {:?}", began.elapsed());
    // The record that was sent while it was frozen waited in its socket and may be there as well.
    assert!(count(&kafka, &topic).await >= 3);
}

#[tokio::test]
async fn clients_connect_only_through_the_proxies() {
    let topic = unique("topic");
    let kafka = Kafka::start(KafkaOptions::default().behind_proxies()).await.unwrap();
    let producer = producer(&kafka.proxied_bootstrap(), SHORT);
    send(&producer, &topic).await.unwrap();
    let proxy = kafka.proxy(0).unwrap();
    assert!(proxy.connections() > 0);
    proxy.refuse();
    assert!(send(&producer, &topic).await.is_err(), "it bypassed the proxy");
    proxy.heal();
    eventually("a send to succeed", LONG, async || Ok(send(&producer, &topic).await?))
        .await
        .unwrap();
}

#[tokio::test]
async fn three_brokers_survive_the_loss_of_one() {
    let topic = unique("topic");
    // The loss of the leader is noticed sooner than by default.
    let options = KafkaOptions::three().property("broker.session.timeout.ms", "3000");
    let began = Instant::now();
    let kafka = Kafka::start(options).await.unwrap();
    println!("three up after {:?}", began.elapsed());
    send_within(&kafka, &topic, LONG).await.unwrap();
    let leader = kafka.leader(&topic, 0).await.unwrap();

    let began = Instant::now();
    kafka.kill(leader).unwrap();
    send_within(&kafka, &topic, Duration::from_secs(60)).await.unwrap();
    println!("new leader after {:?}", began.elapsed());
    assert_ne!(kafka.leader(&topic, 0).await.unwrap(), leader);

    let began = Instant::now();
    kafka.restart(leader).await.unwrap();
    println!("restarted in {:?}", began.elapsed());
    kafka.ready().await.unwrap();
    assert_eq!(count(&kafka, &topic).await, 2);
}
