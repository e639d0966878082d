//! The same program with each kind of async runtime, and without one.

use std::time::Duration;

use eyego_log_client::{Client, Event};

use crate::eventually::eventually;
use crate::server::{FakeServer, accepted};

async fn program(client: Client) {
    client.log(Event::new("a", "A")).unwrap();
    client.send(Event::new("b", "A")).await.unwrap();
    assert!(client.flush().await.is_settled());
    assert!(
        client.query().limit(1).fetch().await.is_err(),
        "the simulated server has no stored events"
    );
    let report = client.shutdown_within(Duration::from_secs(5)).await;
    assert_eq!((report.stats.delivered, report.is_settled()), (2, true));
}

fn with_server(run: impl FnOnce(Client)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(FakeServer::start(|_, seen| accepted(seen)));
    run(server.client().build().unwrap());
}

#[test]
fn works_on_tokio_multi_thread() {
    with_server(|client| tokio::runtime::Runtime::new().unwrap().block_on(program(client)));
}

#[test]
fn works_on_tokio_current_thread_without_drivers() {
    with_server(|client| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(program(client));
    });
}

#[test]
fn works_on_another_executor() {
    with_server(|client| futures_executor::block_on(program(client)));
}

#[test]
fn works_on_smol() {
    with_server(|client| {
        smol::block_on(async {
            // Both the tasks of smol's executor and its timers work beside the client.
            let task = smol::spawn(program(client.clone()));
            smol::Timer::after(Duration::from_millis(1)).await;
            task.await;
            let error = client.send_stored(Event::new("c", "A"), Duration::ZERO).await.unwrap_err();
            assert!(error.to_string().contains("shut down"), "{error}");
        });
    });
}

#[test]
fn works_without_a_runtime() {
    with_server(|client| {
        client.log(Event::new("a", "A")).unwrap();
        eventually("the event is delivered", || client.stats().delivered == 1);
    });
}
