//! SIGTERM under load: as a deployment ends a process.

use std::time::{Duration, Instant};

use stack::kafka::{Kafka, KafkaOptions};
use stack::mongodb::{Mongo, MongoOptions};
use stack::server::{Server, ServerBuilder};

use crate::fixture::Names;
use crate::survival::each_acknowledged_event_survives;

/// For a process that is given less time than it would take.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the system needs to end it and to tell us, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// Stops the server and starts it again; it must end by itself, in time, with exit code 0.
async fn stop_and_start(server: &Server, within: Duration, mend: impl FnOnce()) {
    let start = Instant::now();
    let status = server.terminate().await.unwrap();
    let elapsed = start.elapsed();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(elapsed < within + SLACK, "{elapsed:?}\n{}", server.log());
    mend();
    server.restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_stops_embedded() {
    let server = Server::builder().start().await.unwrap();
    each_acknowledged_event_survives(&server, 4, async |_| {
        stop_and_start(&server, Duration::from_secs(25), || {}).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_stops_on_kafka_and_mongodb() {
    let server = Names::new().await.server("all", "g").start().await.unwrap();
    each_acknowledged_event_survives(&server, 4, async |_| {
        stop_and_start(&server, Duration::from_secs(25), || {}).await;
    })
    .await;
}

fn in_a_hurry(kafka: &str, mongo: &str) -> ServerBuilder {
    Server::builder()
        .env("EYEGO_KAFKA_BROKERS", kafka)
        .env("EYEGO_MONGODB_URI", mongo)
        .env("EYEGO_MONGODB_DATABASE", stack::unique("db"))
        .env("EYEGO_SHUTDOWN_TIMEOUT", format!("{}s", DEADLINE.as_secs()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_its_deadline_when_kafka_hangs() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let mongo = Mongo::shared().await.unwrap();
    let server = in_a_hurry(kafka.bootstrap(), mongo.uri()).start().await.unwrap();
    each_acknowledged_event_survives(&server, 1, async |_| {
        kafka.pause(0).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop_and_start(&server, DEADLINE, || kafka.resume(0).unwrap()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_its_deadline_when_mongodb_hangs() {
    let kafka = Kafka::shared().await.unwrap();
    let mongo = Mongo::start(MongoOptions::default()).await.unwrap();
    let server = in_a_hurry(kafka.bootstrap(), mongo.uri())
        .env("EYEGO_KAFKA_TOPIC", stack::unique("topic"))
        .env("EYEGO_KAFKA_GROUP", stack::unique("group"))
        .start()
        .await
        .unwrap();
    each_acknowledged_event_survives(&server, 1, async |_| {
        mongo.pause(0).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop_and_start(&server, DEADLINE, || mongo.resume(0).unwrap()).await;
    })
    .await;
}
