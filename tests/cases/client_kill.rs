//! The SDK's guarantees while the server is killed, with each overflow policy. `cargo bench -p
//! eyego-log-tests --bench client_kill` does the same with ten million events.

use std::process::{Command, Stdio};
use std::time::Duration;

use stack::client_kill::{Policy, Run, log_and_report, run};

use crate::fixture::embedded_server;

/// The program that logs.
#[test]
#[ignore = "run as a child by the tests of this module"]
fn child_that_logs_from_eight_threads() {
    assert!(log_and_report().unwrap());
}

async fn each_event_is_stored_once_or_counted(policy: Policy) {
    let server = embedded_server().await;
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--ignored", "--exact", "client_kill::child_that_logs_from_eight_threads"])
        .stdout(Stdio::null());
    let timeout = Duration::from_secs(180);
    let events = 200_000;
    run(&server, program, Run { policy, events, buffer_mib: 8, timeout }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_stored_once_if_the_threads_block() {
    each_event_is_stored_once_or_counted(Policy::Block).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_stored_once_or_counted_if_the_newest_are_dropped() {
    each_event_is_stored_once_or_counted(Policy::DropNewest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_stored_once_or_counted_if_the_oldest_are_dropped() {
    each_event_is_stored_once_or_counted(Policy::DropOldest).await;
}
