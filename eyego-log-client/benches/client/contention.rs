//! `log` with several threads that share a client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::clocks::thread_cpu;
use crate::counting::counting_client;
use crate::events::event;

/// Measures `log` with several threads that share a client.
pub(crate) fn contention() {
    const EVENTS: u32 = 2_000_000;

    for threads in [1, 2, 4, 8] {
        let gate = Arc::new(Semaphore::new(0));
        gate.close();
        let client = counting_client(gate);
        let run = |events: u32| {
            let begin = Instant::now();
            let cpu: Duration = std::thread::scope(|scope| {
                let spawned: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            let before = thread_cpu();
                            (0..events / threads).for_each(|_| drop(client.log(event())));
                            thread_cpu() - before
                        })
                    })
                    .collect();
                spawned.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            (cpu, begin.elapsed())
        };
        run(EVENTS / 4);
        let (cpu, wall) = run(EVENTS);
        println!(
            "contention, {threads} threads: {:.0} ns of CPU per event, {:.2} million events/s",
            cpu.as_nanos() as f64 / f64::from(EVENTS),
            f64::from(EVENTS) / wall.as_secs_f64() / 1e6,
        );
    }
}
