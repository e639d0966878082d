//! `log` while thousands of flushes wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::counting::counting_client;
use crate::events::event;

const FLUSHES: usize = 5000;

/// Measures how long single calls to `log` take in four rounds: the events of a
/// round are delivered, and its flushes end, while the calls are measured.
pub(crate) fn flushes() {
    const ROUNDS: usize = 4;
    const EVENTS: usize = 100_000;

    let mut calls = Vec::with_capacity(ROUNDS * EVENTS);
    for _ in 0..ROUNDS {
        let gate = Arc::new(Semaphore::new(0));
        let client = counting_client(Arc::clone(&gate));
        let flushing = client.clone();
        let begun = Arc::new(Barrier::new(2));
        let flushes_begun = Arc::clone(&begun);
        let thread = std::thread::spawn(move || {
            let flushes = (0..FLUSHES).map(|_| {
                flushing.log(event()).unwrap();
                flushing.flush_within(Duration::from_secs(60))
            });
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut flushes = pin!(join_all(flushes));
                // Polls each once, so that all of them wait.
                let poll_once = |context: &mut Context<'_>| {
                    Poll::Ready(flushes.as_mut().poll(context).is_pending())
                };
                assert!(poll_fn(poll_once).await);
                flushes_begun.wait();
                flushes.await.iter().all(eyego_log_client::Report::all_delivered)
            })
        });
        begun.wait();
        for n in 0..EVENTS {
            if n == EVENTS / 4 {
                gate.close();
            }
            let begin = Instant::now();
            client.log(event()).unwrap();
            calls.push(begin.elapsed());
        }
        assert!(thread.join().unwrap());
    }
    calls.sort_unstable();
    let at = |share: usize| calls[calls.len() * share / 10_000];
    println!(
        "flushes: while {FLUSHES} of them wait, one call to `log` takes {:?} (p50), {:?} (p99), \
         {:?} (p99.99), {:?} at most",
        at(5000),
        at(9900),
        at(9999),
        calls[calls.len() - 1],
    );
}
