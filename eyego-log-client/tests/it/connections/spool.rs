//! A process without file descriptors that has a spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
use eyego_log_client::{Event, Overflow};
use futures_executor::block_on;
use tempfile::TempDir;

use super::{limit_descriptors, run_program};
use crate::eventually::{TIMEOUT, eventually};
use crate::server::{FakeServer, accept, accepted, quick, response};

/// Leaves an event in the spool, builds another client with it while the process
/// has no free descriptor, logs, and ends the shortage.
#[test]
#[ignore = "a program that another test runs"]
fn opens_the_spool_without_a_free_descriptor() {
    let dir = TempDir::new().unwrap();
    let left = quick("http://127.0.0.1:1").spool_dir(dir.path()).build().unwrap();
    left.log(Event::new("a", "EARLIER")).unwrap();
    let report = block_on(left.shutdown_within(Duration::from_millis(50)));
    assert_eq!(report.stats.pending, 1, "{report:?}");

    limit_descriptors(0);
    let url = std::env::var("EYEGO_TEST_URL").unwrap();
    let client = quick(&url).spool_dir(dir.path()).build().unwrap();
    client.log(Event::new("a", "LATER")).unwrap();
    let waiting = block_on(client.flush_within(Duration::from_millis(300)));
    assert_eq!((waiting.unsettled, waiting.stats.recovered), (1, 0), "{waiting:?}");
    limit_descriptors(64);
    let report = block_on(client.flush_within(TIMEOUT));
    assert!(report.all_delivered(), "{report:?}");
    assert_eq!((report.stats.delivered, report.stats.unspooled), (2, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_opened_once_there_is_a_free_descriptor() {
    let server = FakeServer::start(|_, seen| accepted(seen)).await;
    let uri = server.server.uri();
    run_program("spool::opens_the_spool_without_a_free_descriptor", &[("EYEGO_TEST_URL", &uri)]);
    assert_eq!(server.seen().len(), 2);
}

/// A transport without a connection, which needs no descriptor. The server is
/// down until the switch is set.
struct Switched(Arc<AtomicBool>);

impl Transport for Switched {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let is_up = self.0.load(Ordering::SeqCst);
        let response = if is_up { accept(&request) } else { response(503, "{}") };
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// Spools more events than stay in memory, delivers them without a free descriptor
/// as far as possible, and ends the shortage.
#[test]
#[ignore = "a program that another test runs"]
fn reads_the_spool_without_a_free_descriptor() {
    const EVENTS: u64 = 10_000;
    let dir = TempDir::new().unwrap();
    let is_up = Arc::new(AtomicBool::new(false));
    let client = quick("http://h")
        .transport(Switched(Arc::clone(&is_up)))
        .compression(false)
        .spool_dir(dir.path())
        // A file has an eighth of this.
        .spool_max_bytes(8 << 20)
        .max_batch_bytes(64 << 10)
        .max_buffer_bytes(256 << 10)
        .overflow(Overflow::Block(TIMEOUT))
        .delivery_timeout(Duration::ZERO)
        .build()
        .unwrap();
    for n in 0..EVENTS {
        client.log(Event::new("a", "A").field("text", "x".repeat(300)).field("n", n)).unwrap();
    }
    limit_descriptors(0);
    is_up.store(true, Ordering::SeqCst);
    eventually("the shortage is visible", || {
        let problem = client.stats().last_problem;
        problem.is_some_and(|problem| problem.message.contains("cannot be read now"))
    });
    let stats = client.stats();
    assert!(stats.lost.total() == 0 && stats.delivered < EVENTS, "{stats:?}");
    limit_descriptors(64);
    let report = block_on(client.flush_within(TIMEOUT));
    assert!(report.all_delivered() && report.stats.delivered == EVENTS, "{report:?}");
}

#[test]
fn spooled_events_wait_for_a_free_descriptor() {
    run_program("spool::reads_the_spool_without_a_free_descriptor", &[]);
}
