//! A server that receives more than it can accept.

use std::time::Duration;

use stack::kafka::{Kafka, KafkaOptions};
use stack::load::{Load, ndjson_requests};

use crate::fixture::{Deployment, TIMEOUT, ready};

/// The default budgets, 128 MiB for ingest and 64 MiB for the worker, and 100 MiB for the program.
const MAX_MEMORY: u64 = (128 + 64 + 100) << 20;

#[tokio::test(flavor = "multi_thread")]
async fn overload_returns_503_in_bounded_memory() {
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let server = ready(Deployment::on_shared_mongodb(kafka.bootstrap()).await.server("all")).await;
    // A frozen broker is worse than a dead one, because no request to it fails at once.
    kafka.pause(0).unwrap();
    let load = Load {
        address: server.address(),
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
    server.wait_ready(TIMEOUT * 2).await.unwrap();
}
