//! One suite for each port, written against the port alone, and run by each
//! adapter: what it asks for is what the port's documentation promises.
//!
//! An adapter takes part with a fixture and one test per port that calls
//! `run`. What only one adapter does is tested beside it.

pub(crate) mod dead_letters;
pub(crate) mod queue;
pub(crate) mod repository;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::{Action, LogEntry, LogId, Metadata, Timestamp, UserId};
use tokio::sync::Semaphore;

/// How long something that will happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type CaseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A promise, and how it is put to the test on a fresh fixture.
pub(crate) type Case<F> = (&'static str, fn(F) -> CaseFuture);

/// Runs each case on a fixture of its own, so many at once, and fails with the
/// names of all that failed.
pub(crate) async fn run_cases<F, Fresh>(
    cases: &[Case<F>],
    at_once: usize,
    fresh: impl Fn() -> Fresh,
) where
    F: 'static,
    Fresh: Future<Output = F> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(at_once));
    let running: Vec<_> = cases
        .iter()
        .map(|(name, case)| {
            let (turns, fixture, case) = (Arc::clone(&turns), fresh(), *case);
            let running = tokio::spawn(async move {
                let _turn = turns.acquire_owned().await.unwrap();
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

/// Runs something that blocks within a case.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// An id that sorts by `n`.
pub(crate) fn id(n: u32) -> LogId {
    let mut bytes = [0x68; 12];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    LogId::from_bytes(bytes)
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

/// A log whose time the caller gave.
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
