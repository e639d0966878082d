//! Loom models: every order in which callers and a worker can run. No thread
//! may wait forever, and the counts must balance at the end.
//!
//! ```sh
//! RUSTFLAGS='--cfg eyego_loom' cargo test -p eyego-log-client --lib \
//!     --no-default-features --target-dir target/loom models
//! ```
//!
//! The flag is specific to this crate, because `--cfg loom` would disable
//! tokio's networking.

use std::time::Duration;

use loom::thread;

use super::*;

const LINE: &[u8] = b"{}\n";

struct Model {
    queue: EventQueue,
    worker: Arc<Notify>,
}

/// Creates a queue with room for `room` events, each of which is a batch.
fn queue(room: usize, overflow: Overflow) -> Arc<Model> {
    let options = QueueOptions {
        batch: BatchLimits { events: 1, bytes: 1024, linger: Duration::ZERO },
        max_bytes: room * Batch::cost_of(LINE.len()),
        overflow,
    };
    let worker = Arc::new(Notify::new());
    let queue = EventQueue::new(options, Reporter::default(), Arc::clone(&worker));
    Arc::new(Model { queue, worker })
}

fn delivered(batch: Batch) -> SettledBatch {
    SettledBatch { batch, outcome: Outcome::Delivered }
}

/// Acts as a worker without a server: delivers batches until `max` events are
/// delivered, or until the client is closing and nothing is pending.
fn deliver(Model { queue, worker }: &Model, max: u64) {
    loop {
        while let Some(batch) = queue.take_due(Instant::now()) {
            queue.settle(delivered(batch));
        }
        let state = queue.state();
        let is_finished =
            matches!(state.phase, Phase::Closing(_)) && state.accounting.stats.pending == 0;
        if is_finished || state.accounting.stats.delivered >= max {
            return;
        }
        drop(state);
        worker.wait();
    }
}

fn deliver_two_events_of_two_threads(model: &Arc<Model>) {
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let model = Arc::clone(model);
            thread::spawn(move || model.queue.enqueue(LINE, None).unwrap())
        })
        .collect();
    deliver(model, 2);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

/// Spawns a thread that logs two events, which may be refused.
fn log_twice(model: &Arc<Model>) -> thread::JoinHandle<()> {
    let model = Arc::clone(model);
    thread::spawn(move || {
        let _ = model.queue.enqueue(LINE, None);
        let _ = model.queue.enqueue(LINE, None);
    })
}

fn check(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Explores all orders with up to three preemptions.
    builder.preemption_bound = Some(3);
    builder.check(run);
}

#[test]
fn every_event_leaves_the_buffer() {
    check(|| {
        let model = queue(8, Overflow::DropNewest);
        deliver_two_events_of_two_threads(&model);
        let stats = model.queue.stats();
        assert_eq!((stats.delivered, stats.pending), (2, 0));
        assert!(stats.is_balanced());
    });
}

#[test]
fn a_thread_that_waits_for_room_is_woken() {
    check(|| {
        let model = queue(1, Overflow::Block(Duration::from_secs(1)));
        deliver_two_events_of_two_threads(&model);
        assert_eq!(model.queue.stats().delivered, 2);
    });
}

#[test]
fn shutdown_wakes_every_thread() {
    check(|| {
        let model = queue(1, Overflow::Block(Duration::from_secs(1)));
        let caller = log_twice(&model);
        let closing = Arc::clone(&model);
        let closer = thread::spawn(move || {
            drop(closing.queue.close(Instant::now()));
            closing.queue.wait_closed(Duration::from_secs(1));
        });
        deliver(&model, u64::MAX);
        model.queue.finish(LossReason::Shutdown, Vec::new(), "the client was shut down");
        caller.join().unwrap();
        closer.join().unwrap();
        let stats = model.queue.stats();
        assert_eq!((stats.accepted, stats.pending), (2, 0));
        assert!(stats.is_balanced(), "{stats:?}");
    });
}

#[test]
fn drop_oldest_drops_an_event_only_once() {
    check(|| {
        let model = queue(1, Overflow::DropOldest);
        let caller = log_twice(&model);
        if let Some(batch) = model.queue.take_due(Instant::now()) {
            model.queue.settle(delivered(batch));
        }
        caller.join().unwrap();
        let stats = model.queue.stats();
        assert!(stats.accepted == 2 && stats.is_balanced(), "{stats:?}");
        assert!(stats.pending_bytes <= model.queue.options.max_bytes);
    });
}
