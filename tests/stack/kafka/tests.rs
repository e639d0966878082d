//! A broker that is killed, frozen, stopped and brought back, and a cluster that loses one.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{Kafka, KafkaOptions};
use crate::unique;

async fn send(kafka: &Kafka, topic: &str, patience: Duration) -> Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("message.timeout.ms", patience.as_millis().to_string())
        .set("reconnect.backoff.max.ms", "200")
        .create()?;
    let record = FutureRecord::to(topic).key("k").payload("v");
    producer.send(record, Duration::ZERO).await.map(drop).map_err(|(error, _)| error.into())
}

async fn count(kafka: &Kafka, topic: &str) -> Result<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create()?;
    let topic = topic.to_owned();
    let patience = Duration::from_secs(20);
    let (low, high) =
        tokio::task::spawn_blocking(move || consumer.fetch_watermarks(&topic, 0, patience))
            .await??;
    Ok(high - low)
}

#[tokio::test]
async fn the_shared_broker_is_one_for_all() -> Result<()> {
    let (one, other) = tokio::try_join!(Kafka::shared(), Kafka::shared())?;
    assert_eq!(one.bootstrap(), other.bootstrap());
    Ok(())
}

#[tokio::test]
async fn a_broker_comes_back_with_its_data() -> Result<()> {
    let (short, long) = (Duration::from_secs(2), Duration::from_secs(30));
    let topic = unique("topic");
    let kafka = Kafka::prepare(KafkaOptions::default().property("num.partitions", "1")).await?;
    assert!(send(&kafka, &topic, short).await.is_err(), "it does not run yet");
    let began = Instant::now();
    kafka.up().await?;
    println!("up after {:?}", began.elapsed());
    send(&kafka, &topic, long).await?;

    kafka.kill(0)?;
    assert!(send(&kafka, &topic, short).await.is_err(), "it was killed");
    let began = Instant::now();
    kafka.restart(0).await?;
    println!("back from SIGKILL after {:?}", began.elapsed());
    send(&kafka, &topic, long).await?;

    kafka.pause(0)?;
    assert!(send(&kafka, &topic, short).await.is_err(), "it is frozen");
    kafka.resume(0)?;
    send(&kafka, &topic, long).await?;

    let began = Instant::now();
    kafka.stop(0).await?;
    println!("stopped after {:?}", began.elapsed());
    let began = Instant::now();
    kafka.restart(0).await?;
    println!("back from SIGTERM after {:?}", began.elapsed());
    // What was sent while it was frozen waits in its socket and may appear as well.
    assert!(count(&kafka, &topic).await? >= 3);
    Ok(())
}

#[tokio::test]
async fn clients_come_through_the_proxies_only() -> Result<()> {
    let topic = unique("topic");
    let kafka = Kafka::start(KafkaOptions::default().behind_proxies()).await?;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.proxied_bootstrap())
        .set("message.timeout.ms", "2000")
        .set("reconnect.backoff.max.ms", "200")
        .create()?;
    let send = async || {
        let record = FutureRecord::to(&topic).key("k").payload("v");
        producer.send(record, Duration::ZERO).await
    };
    assert!(send().await.is_ok());
    let proxy = kafka.proxy(0)?;
    assert!(proxy.connections() > 0);
    proxy.refuse();
    assert!(send().await.is_err(), "it went past the proxy");
    proxy.heal();
    let deadline = Instant::now() + Duration::from_secs(20);
    while send().await.is_err() {
        assert!(Instant::now() < deadline, "{}", kafka.log(0)?);
    }
    Ok(())
}

#[tokio::test]
async fn three_brokers_survive_the_loss_of_one() -> Result<()> {
    let topic = unique("topic");
    // The dead leader is missed sooner than by default.
    let options = KafkaOptions::three().property("broker.session.timeout.ms", "3000");
    let began = Instant::now();
    let kafka = Kafka::start(options).await?;
    println!("three up after {:?}", began.elapsed());
    send(&kafka, &topic, Duration::from_secs(30)).await?;
    let leader = kafka.leader(&topic, 0).await?;

    let began = Instant::now();
    kafka.kill(leader)?;
    send(&kafka, &topic, Duration::from_secs(60)).await?;
    println!("another leader after {:?}", began.elapsed());
    assert_ne!(kafka.leader(&topic, 0).await?, leader);

    let began = Instant::now();
    kafka.restart(leader).await?;
    println!("back after {:?}", began.elapsed());
    kafka.ready().await?;
    assert_eq!(count(&kafka, &topic).await?, 2);
    Ok(())
}
