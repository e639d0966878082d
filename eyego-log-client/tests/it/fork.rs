//! A process that forks after the client was built. The child has none of the
//! client's threads.

use std::process::exit;
use std::time::{Duration, Instant};

use eyego_log_client::{Client, Event, LogError, LossReason, RequestError, SendError};
use fork::{Fork, fork, waitpid_nohang};
use futures_executor::block_on;

use crate::eventually::eventually;
use crate::server::{FakeServer, accepted};

/// Runs `check` in a forked child and waits for its result.
#[expect(
    clippy::exit,
    clippy::print_stdout,
    reason = "the child says what failed and must not return to the test harness"
)]
fn in_child(check: impl FnOnce() -> Result<(), String>) {
    match fork().unwrap() {
        Fork::Child => {
            let result = check();
            if let Err(error) = &result {
                println!("child: {error}");
            }
            exit(i32::from(result.is_err()));
        }
        Fork::Parent(child) => {
            let mut status = None;
            eventually("the child ends", || {
                status = waitpid_nohang(child).unwrap();
                status.is_some()
            });
            assert_eq!(status, Some(0), "the child failed");
        }
    }
}

fn expect(condition: bool, what: &str) -> Result<(), String> {
    condition.then_some(()).ok_or_else(|| what.to_owned())
}

fn use_in_child(client: Client, url: &str) -> Result<(), String> {
    let begin = Instant::now();
    let timeout = Duration::from_secs(5);
    for _ in 0..10 {
        let result = client.log(Event::new("child", "A"));
        expect(result == Err(LogError::Forked), "log returns an error")?;
    }
    let sent = block_on(client.send(Event::new("child", "A")));
    expect(sent == Err(SendError::NotAccepted(LogError::Forked)), "send returns an error")?;
    let report = block_on(client.flush_within(timeout));
    expect(!report.all_delivered(), "flush reports the losses")?;
    let read = block_on(client.query().fetch());
    expect(read.err() == Some(RequestError::Forked), "a query returns an error")?;
    let followed = block_on(client.query().tail().next_item());
    expect(followed == Some(Err(RequestError::Forked)), "a tail ends with an error")?;
    let stats = block_on(client.shutdown_within(timeout)).stats;
    expect(stats.lost.get(LossReason::Forked) == 11, "losses are counted")?;
    expect(stats.is_balanced() && stats.pending == 0, "the counts balance")?;
    drop(client.guard());
    drop(client);
    expect(begin.elapsed() < timeout, "nothing waits")?;
    let fresh = Client::builder(url).build().map_err(|error| error.to_string())?;
    block_on(fresh.send(Event::new("fresh", "A"))).map_err(|error| error.to_string())?;
    let report = block_on(fresh.shutdown());
    expect(report.all_delivered(), "a new client works")
}

#[test]
fn a_child_gets_errors_and_counted_losses_and_can_build_a_new_client() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(FakeServer::start(|_, seen| accepted(seen)));
    let client = server.client().build().unwrap();
    block_on(client.send(Event::new("parent", "A"))).unwrap();
    let url = server.server.uri();
    // Several times, because a fork can happen while another thread holds a lock.
    for n in 0..20 {
        client.log(Event::new("parent", format!("B{n}"))).unwrap();
        let child_client = client.clone();
        in_child(|| use_in_child(child_client, &url));
    }
    let report = block_on(client.shutdown());
    assert!(report.all_delivered() && report.stats.delivered == 21, "{report:?}");
    let seen = server.seen();
    let users: Vec<_> = seen.iter().flat_map(crate::server::Seen::users).collect();
    assert_eq!(users.iter().filter(|user| **user == "fresh").count(), 20);
    assert!(!users.contains(&"child"));
}
