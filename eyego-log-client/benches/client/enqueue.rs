//! What a call to `log` costs the calling thread.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eyego_log_client::Client;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::clocks::thread_cpu;
use crate::counting::counting_client;
use crate::events::{PLAIN, event};

const EVENTS: u32 = 100_000;
const ROUNDS: usize = 40;

/// Returns a client that has buffered and delivered a whole round.
fn warm_client() -> (Client, Runtime) {
    let gate = Arc::new(Semaphore::new(0));
    let client = counting_client(Arc::clone(&gate));
    log_events(&client);
    gate.close();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    flush(&client, &runtime);
    (client, runtime)
}

fn flush(client: &Client, runtime: &Runtime) {
    let report = runtime.block_on(client.flush_within(Duration::from_secs(60)));
    assert!(report.all_delivered(), "{report:?}");
}

#[inline(never)]
fn log_events(client: &Client) {
    (0..EVENTS).for_each(|_| assert!(client.log(black_box(event())).is_ok()));
}

#[inline(never)]
fn serialize_events(line: &mut Vec<u8>) {
    for _ in 0..EVENTS {
        line.clear();
        serde_json::to_writer(&mut *line, black_box(&PLAIN)).unwrap();
        black_box(&line);
    }
}

/// Measures a call to `log` on one thread. Rounds of both variants alternate, and
/// each round's events are delivered before the next, because a large backlog
/// would measure memory bandwidth.
pub(crate) fn enqueue() {
    let (client, runtime) = warm_client();
    let mut line = Vec::with_capacity(1024);
    let (mut plain, mut logged) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let mut walls = Vec::with_capacity(ROUNDS);
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        plain.push(per_event(|| serialize_events(&mut line)));
        let counted = allocation_counter::measure(|| {
            let begin = Instant::now();
            logged.push(per_event(|| log_events(&client)));
            walls.push(begin.elapsed() / EVENTS);
        });
        allocations += counted.count_total;
        flush(&client, &runtime);
    }
    let clock = per_event(|| {
        for _ in 0..EVENTS {
            black_box(SystemTime::now());
        }
    });
    walls.sort_unstable();
    let (plain, logged) = (median(plain), median(logged));
    println!(
        "enqueue: {logged:.0} ns of CPU per event, {:.2} times serde_json alone ({plain:.0} ns); \
         reading the clock {clock:.0} ns; median wall time {:?}; {} allocations in {} events",
        logged / plain,
        walls[walls.len() / 2],
        allocations,
        EVENTS as usize * ROUNDS,
    );
    assert!(client.stats().is_balanced());
}

/// Runs both variants once, so that callgrind can count the instructions of
/// `log_events` and `serialize_events`. It cannot read the clocks of `enqueue`.
pub(crate) fn instructions() {
    let (client, _runtime) = warm_client();
    log_events(&client);
    serialize_events(&mut Vec::with_capacity(1024));
}

/// Returns the nanoseconds of CPU time per event.
fn per_event(run: impl FnOnce()) -> f64 {
    let before = thread_cpu();
    run();
    (thread_cpu() - before).as_nanos() as f64 / f64::from(EVENTS)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
