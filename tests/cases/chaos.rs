//! A short run of the fault injector. It is a separate test binary, which cargo runs alone, because its
//! eleven processes would slow down tests that measure time.
//!
//! `EYEGO_TEST_SEED` sets the random seed, and `EYEGO_TEST_EVENTS` the number of events.

#![expect(clippy::unwrap_used, reason = "an error in a test or in its helpers fails the test")]

use std::sync::Arc;

use stack::chaos::{Journal, Options, run};

/// Low enough for one round of faults to fit in, and for two busy cores to keep up.
const RATE: u64 = 300;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_acknowledged_event_is_stored_once_under_faults() {
    let options = Options {
        events: variable("EYEGO_TEST_EVENTS", 42_000),
        seed: variable("EYEGO_TEST_SEED", 7),
        rate: Some(RATE),
        has_spool: true,
    };
    let journal = Arc::new(Journal::new(false));
    let violations = run(&options, &journal).await;
    let faults: u64 = journal.faults().values().sum();
    let report = format!("{}\nrepeat it with EYEGO_TEST_SEED={}", journal.text(), options.seed);
    match violations {
        Ok(violations) => assert!(violations.is_empty(), "{report}"),
        Err(error) => panic!("{report}\n{error:#}"),
    }
    assert!(faults >= 20, "only {faults} faults:\n{report}");
}
