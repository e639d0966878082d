//! Tests of the worker.

use std::sync::atomic::Ordering;

use super::*;
use crate::transport::{BoxFuture, Request, Response, Transport, TransportError, response};
use crate::{Client, ClientBuilder, Event, LogError};

pub(super) fn panic_if_requested(mailbox: &Mailbox) {
    let decrement = |left: u32| left.checked_sub(1);
    let result = mailbox.panics_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement);
    assert!(result.is_err(), "requested by the test");
}

/// Accepts every event after a short delay.
struct Accepting;

impl Transport for Accepting {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let count = request.body().iter().filter(|byte| **byte == b'\n').count();
        let body = format!(r#"{{"accepted":{count},"rejected":[]}}"#);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(response(202, body))
        })
    }
}

fn builder() -> ClientBuilder {
    let builder = Client::builder("http://localhost").transport(Accepting);
    builder.compression(false).linger(Duration::ZERO).on_problem(|_| {})
}

fn client() -> Client {
    builder().build().unwrap()
}

async fn assert_panics_lose_nothing(client: Client) {
    for n in 0..2000 {
        if n % 700 == 0 {
            client.mailbox().unwrap().panics_left.store(1, Ordering::SeqCst);
        }
        client.log(Event::new("u", "A")).unwrap();
    }
    let report = client.flush().await;
    assert_eq!((report.stats.delivered, report.is_settled()), (2000, true), "{report:?}");
    assert!(report.stats.worker_restarts > 0);
}

#[tokio::test]
async fn a_worker_that_panics_is_restarted_with_all_its_events() {
    assert_panics_lose_nothing(client()).await;
}

#[cfg(feature = "spool")]
#[tokio::test]
async fn a_worker_that_panics_is_restarted_with_its_spool() {
    let dir = tempfile::TempDir::new().unwrap();
    let client = builder().spool_dir(dir.path()).build().unwrap();
    assert_panics_lose_nothing(client.clone()).await;
    let stats = client.shutdown().await.stats;
    assert!(stats.is_balanced() && stats.unspooled == 0, "{stats:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock file remains");
}

#[tokio::test]
async fn a_worker_that_always_panics_fails_permanently() {
    let client = client();
    client.mailbox().unwrap().panics_left.store(1000, Ordering::SeqCst);
    let lost = client.send(Event::new("u", "A")).await;
    assert!(lost.is_err());
    let stats = client.stats();
    assert_eq!(stats.lost.get(LossReason::WorkerFailed), 1);
    assert!(stats.last_problem.unwrap().message.contains("requested by the test"));
    assert_eq!(client.log(Event::new("u", "A")), Err(LogError::Closed));
    assert!(client.stats().is_balanced() && client.flush().await.is_settled());
}
