//! One conformance suite per port. It tests what the port's documentation promises, through the port
//! alone, and every adapter runs it.
//!
//! An adapter provides a fixture, and one test per port that calls `run`. Behaviour that is specific
//! to an adapter is tested elsewhere.

pub(crate) mod dead_letters;
pub(crate) mod erasures;
pub(crate) mod queue;
pub(crate) mod removal;
pub(crate) mod repository;
pub(crate) mod tail;

use std::pin::Pin;
use std::sync::Arc;

use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};
use eyego_log_server::domain::read::{ReadError, ReadMemory};
use tokio::sync::Semaphore;

pub(crate) type CaseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The name of a promise, and its test on a fresh fixture.
pub(crate) type Case<F> = (&'static str, fn(F) -> CaseFuture);

/// Runs each case on its own fixture, up to `concurrency` at a time, and fails with the names of all
/// cases that failed.
pub(crate) async fn run_cases<F, Fresh>(
    cases: &[Case<F>],
    concurrency: usize,
    fresh: impl Fn() -> Fresh,
) where
    F: 'static,
    Fresh: Future<Output = F> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(concurrency));
    let running: Vec<_> = cases
        .iter()
        .map(|(name, case)| {
            let (permits, fixture, case) = (Arc::clone(&permits), fresh(), *case);
            let running = tokio::spawn(async move {
                let _permit = permits.acquire_owned().await.unwrap();
                case(fixture.await).await;
            });
            (*name, running)
        })
        .collect();
    let mut failed = Vec::new();
    for (name, running) in running {
        if running.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these cases failed (see above): {failed:#?}");
}

/// Memory without a limit.
struct Unlimited;

impl ReadMemory for Unlimited {
    fn reserve(&self, _bytes: usize) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Returns the memory of a read that needs no limit.
pub(crate) fn unlimited() -> Arc<dyn ReadMemory> {
    Arc::new(Unlimited)
}

/// Runs a blocking closure within a test.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Returns an id. Ids sort by `n`.
pub(crate) fn id(n: u32) -> LogId {
    let mut bytes = [0x68; 12];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    LogId::from_bytes(bytes)
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

/// Returns a log.
pub(crate) fn entry(n: u32, user: &str, action: &str, millis: i64, metadata: &str) -> LogEntry {
    let mut entry = LogEntry::new(
        id(n),
        UserId::from_stored(user).unwrap(),
        Action::from_stored(action).unwrap(),
        at(millis),
        Metadata::from_json(metadata.to_owned()).unwrap(),
    );
    entry.received_at = Some(at(1_768_435_085_442));
    entry
}
