//! A short run of the fault injector. It is a test program of its own, which cargo runs alone: its
//! eleven processes would take the processor from cases that look at the clock.
//!
//! `EYEGO_TEST_SEED` chooses what happens, `EYEGO_TEST_EVENTS` how much is sent.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::sync::Arc;

use stack::chaos::{Journal, Options, run};

/// Slow enough that one round of faults fits in, and that two busy cores keep up.
const EVENTS_A_SECOND: u64 = 300;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_is_stored_once_whatever_happens() {
    let options = Options {
        events: variable("EYEGO_TEST_EVENTS", 36_000),
        seed: variable("EYEGO_TEST_SEED", 7),
        rate: Some(EVENTS_A_SECOND),
        has_spool: true,
    };
    let journal = Arc::new(Journal::new(false));
    let complaints = run(&options, &journal).await;
    let faults: u64 = journal.faults().values().sum();
    let again = format!("{}\nrun it again with EYEGO_TEST_SEED={}", journal.text(), options.seed);
    match complaints {
        Ok(complaints) => assert!(complaints.is_empty(), "{again}"),
        Err(error) => panic!("{again}\n{error:#}"),
    }
    assert!(faults >= 20, "too little happened:\n{again}");
}
