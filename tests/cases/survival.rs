//! Each event that a server acknowledged is stored exactly once, whatever happens to the server.

use std::time::Duration;

use stack::chaos::{Scenario, Target};
use stack::server::Server;

use crate::fixture::{Deployment, TIMEOUT};

/// The time for all events to be acknowledged.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);
/// The time for all acknowledged events to be stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends 20,000 events to the server, or as many as `EYEGO_TEST_EVENTS` says, and meanwhile calls
/// `disturb` with the numbers from 1 to `disturbances`. Afterwards each acknowledged event must be
/// stored once, and nothing else.
pub(crate) async fn each_acknowledged_event_survives(
    server: &Server,
    disturbances: u64,
    disturb: impl AsyncFn(u64),
) {
    let events = std::env::var("EYEGO_TEST_EVENTS").ok().map_or(20_000, |n| n.parse().unwrap());
    server.wait_ready(TIMEOUT).await.unwrap();
    let target = Target { apis: vec![server.base_url()], kafka: None };
    let scenario = Scenario::new(target, 1, events);
    let sending = scenario.send().unwrap();
    for n in 1..=disturbances {
        let count = events * n / (disturbances + 1);
        scenario.wait_for_acknowledged(count, SEND_TIMEOUT).await.unwrap();
        disturb(n).await;
    }
    tokio::time::timeout(SEND_TIMEOUT, sending).await.unwrap().unwrap().unwrap();
    let violations = scenario.check(&[], STORE_TIMEOUT).await.unwrap();
    assert!(violations.is_empty(), "{violations}\n{}", server.log());
}

async fn each_acknowledged_event_survives_kills(server: &Server) {
    each_acknowledged_event_survives(server, 5, async |_| {
        server.kill().unwrap();
        server.restart().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_kills_embedded() {
    let server = Server::builder().start().await.unwrap();
    each_acknowledged_event_survives_kills(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_survives_kills_on_kafka_and_mongodb() {
    let server = Deployment::shared().await.server("all").start().await.unwrap();
    each_acknowledged_event_survives_kills(&server).await;
}
