//! What the server does when more comes than it can take.

use std::net::SocketAddr;
use std::time::Duration;

use stack::kafka::{Kafka, KafkaOptions};
use stack::load::{Load, ndjson_requests};
use stack::mongodb::Mongo;
use stack::server::Server;

use crate::conformance::PATIENCE;

/// The defaults: 128 MiB for ingest, 64 MiB for the worker; and what the program itself takes.
const MAX_MEMORY: u64 = (128 + 64 + 100) << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_answered_by_503_in_bounded_memory() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let server = Server::builder()
        .env("EYEGO_KAFKA_BROKERS", kafka.bootstrap())
        .env("EYEGO_MONGODB_URI", Mongo::shared().await.unwrap().uri())
        .env("EYEGO_MONGODB_DATABASE", stack::unique("db"))
        .start()
        .await
        .unwrap();
    server.wait_ready(PATIENCE).await.unwrap();
    // A broker that hangs is worse than one that is gone: nothing fails at once.
    kafka.pause(0).unwrap();
    let load = Load {
        address: SocketAddr::from(([127, 0, 0, 1], server.port())),
        connections: 500,
        duration: Duration::from_secs(12),
        request: ndjson_requests(500),
        rate: None,
    };
    let loading = tokio::spawn(load.run());
    let mut peak = 0;
    while !loading.is_finished() {
        peak = peak.max(server.rss_bytes().unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = loading.await.unwrap().unwrap();
    kafka.resume(0).unwrap();

    println!(
        "peak {} MiB, {} times 503, {} accepted, {} broken",
        peak >> 20,
        outcome.unavailable,
        outcome.accepted,
        outcome.broken
    );
    assert!(outcome.unavailable > 100, "{} times 503", outcome.unavailable);
    assert_eq!(outcome.others, 0);
    assert!(peak < MAX_MEMORY, "{} MiB", peak >> 20);
    server.wait_ready(PATIENCE * 2).await.unwrap();
}
