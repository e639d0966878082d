//! Every order in which callers and a worker may meet, tried by loom:
//!
//! ```sh
//! RUSTFLAGS='--cfg eyego_loom' cargo test -p eyego-log-client --lib \
//!     --no-default-features --target-dir target/loom models
//! ```
//!
//! The flag is our own: `--cfg loom` would take the network out of tokio.
//!
//! Nobody may sleep for ever, and the law holds at the end.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::Client;
use crate::config::Overflow;

/// A line of a made-up event.
const LINE: &[u8] = b"{}\n";

/// With room for as many events, each a batch of its own.
fn shared(room: usize, overflow: Overflow) -> Arc<Shared> {
    let builder = Client::builder("http://localhost").overflow(overflow);
    let mut config = builder.linger(Duration::ZERO).max_batch_events(1).validated();
    config.max_buffer_bytes = room * Batch::cost_of(LINE.len());
    Arc::new(Shared::new(config))
}

/// What the worker does, without a server: delivers until the client is closed
/// and empty, or so many are settled.
fn deliver(shared: &Shared, most: u64) {
    loop {
        while let Some(batch) = shared.next_batch(Instant::now()) {
            shared.settle(Settled { batch, fate: Fate::Delivered, message: String::new() });
        }
        let state = shared.state();
        let is_closing =
            matches!(state.phase, Phase::Closing(_)) && state.ledger.stats.pending == 0;
        if is_closing || state.ledger.stats.delivered >= most {
            return;
        }
        drop(state);
        shared.news.wait();
    }
}

fn two_log_and_all_is_delivered(shared: &Arc<Shared>) {
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let shared = Arc::clone(shared);
            thread::spawn(move || shared.enqueue(LINE, None).unwrap())
        })
        .collect();
    deliver(shared, 2);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

/// Whether the events are taken is not its business.
fn one_that_logs_twice(shared: &Arc<Shared>) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let _ = shared.enqueue(LINE, None);
        let _ = shared.enqueue(LINE, None);
    })
}

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // All orders with up to three switches that no thread asked for.
    builder.preemption_bound = Some(3);
    builder.check(run);
}

#[test]
fn no_event_is_left_in_the_buffer() {
    model(|| {
        let shared = shared(8, Overflow::DropNewest);
        two_log_and_all_is_delivered(&shared);
        let stats = shared.stats();
        assert_eq!((stats.delivered, stats.pending), (2, 0));
        assert!(stats.is_balanced());
    });
}

#[test]
fn whoever_waits_for_room_is_let_in() {
    model(|| {
        let shared = shared(1, Overflow::Block(Duration::from_secs(1)));
        two_log_and_all_is_delivered(&shared);
        assert_eq!(shared.stats().delivered, 2);
    });
}

#[test]
fn a_shutdown_ends_everything() {
    model(|| {
        let shared = shared(1, Overflow::Block(Duration::from_secs(1)));
        let caller = one_that_logs_twice(&shared);
        let closing = Arc::clone(&shared);
        let closer = thread::spawn(move || {
            drop(closing.close(Instant::now()));
            closing.wait_closed(Duration::from_secs(1));
        });
        deliver(&shared, u64::MAX);
        shared.end(LossReason::Shutdown, Vec::new(), "the end");
        caller.join().unwrap();
        closer.join().unwrap();
        let stats = shared.stats();
        assert_eq!((stats.accepted, stats.pending), (2, 0));
        assert!(stats.is_balanced(), "{stats:?}");
    });
}

#[test]
fn the_oldest_gives_way_once() {
    model(|| {
        let shared = shared(1, Overflow::DropOldest);
        let caller = one_that_logs_twice(&shared);
        if let Some(batch) = shared.next_batch(Instant::now()) {
            shared.settle(Settled { batch, fate: Fate::Delivered, message: String::new() });
        }
        caller.join().unwrap();
        let stats = shared.stats();
        assert!(stats.accepted == 2 && stats.is_balanced(), "{stats:?}");
        assert!(stats.pending_bytes <= shared.config.max_buffer_bytes);
    });
}
