//! What each feature adds, as a program uses it.

use std::convert::Infallible;
use std::time::Duration;

use eyego_log_client::testing::Recorder;
use eyego_log_client::tower::RequestLogLayer;
use eyego_log_client::transport::Response;
use eyego_log_client::{Client, Event, LossReason, blocking};
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tracing_subscriber::prelude::*;

use crate::server::quick;

fn recorded() -> (Client, Recorder) {
    let recorder = Recorder::new();
    (quick("http://test").transport(recorder.clone()).build().unwrap(), recorder)
}

#[test]
fn blocking_waits_without_a_runtime_and_beside_one() {
    let (client, recorder) = recorded();
    blocking::wait(client.send(Event::new("ada", "LOGIN"))).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let other = client.clone();
        let sent =
            std::thread::spawn(move || blocking::wait(other.send(Event::new("bob", "LOGIN"))));
        client.send(Event::new("eve", "LOGIN")).await.unwrap();
        sent.join().unwrap().unwrap();
    });
    assert_eq!(recorder.with_action("LOGIN").len(), 3);
    assert!(blocking::Client::from(client.clone()).query().iter().next().unwrap().is_err());
    assert!(blocking::wait(client.shutdown()).all_settled());
}

#[tokio::test]
async fn a_recorder_records_and_fails_where_asked() {
    let (client, recorder) = recorded();
    recorder.respond_with([Response::new(503, ""), Response::new(401, "")]);
    let lost = client.send(Event::new("ada", "LOST")).await;
    assert!(lost.is_err());
    assert_eq!(client.stats().lost.get(LossReason::Unauthorized), 1);
    for n in 0..100 {
        client.log(Event::new("ada", "KEPT").metadata(json!({"n": n}))).unwrap();
    }
    assert!(client.flush().await.all_settled());
    recorder.assert_none("LOST");
    assert_eq!(recorder.with_action("KEPT").len(), 100);
    assert_eq!(recorder.events()[99].metadata.to_map()["n"], 99);
}

#[tokio::test]
async fn marked_events_are_logs_and_others_are_not() {
    let (client, recorder) = recorded();
    let subscriber = tracing_subscriber::registry()
        .with(eyego_log_client::tracing::TracingLayer::new(client.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(userId = "ada", action = "CLICK", n = 7, big = u64::MAX, "on {}", "home");
        tracing::info!(user_id = 42, action = "VIEW");
        tracing::info!(action = "NOBODY");
        tracing::info!("nothing");
    });
    assert!(client.flush().await.all_settled());
    let click = recorder.single("CLICK").metadata.to_map();
    assert_eq!(click["message"], "on home");
    assert_eq!(click["n"], 7);
    assert_eq!(click["big"], u64::MAX.to_string());
    assert_eq!(recorder.single("VIEW").user_id.as_str(), "42");
    assert_eq!(recorder.events().len(), 2);
}

#[tokio::test]
async fn requests_that_pass_are_logged() {
    let (client, recorder) = recorded();
    let layer = RequestLogLayer::new(
        client.clone(),
        |request: &&str| request.strip_prefix("user ").map(str::to_owned),
        |user, answer: Option<&usize>| {
            Event::new(user, "REQUEST").metadata(json!({"answer": answer}))
        },
    );
    let inner =
        service_fn(|request: &'static str| async move { Ok::<_, Infallible>(request.len()) });
    let mut service = ServiceBuilder::new().layer(layer).service(inner);
    for request in ["user ada", "nobody"] {
        service.ready().await.unwrap();
        assert_eq!((&mut service).oneshot(request).await, Ok(request.len()));
    }
    assert!(client.flush_within(Duration::from_secs(5)).await.all_settled());
    let logged = recorder.single("REQUEST");
    assert_eq!(logged.user_id.as_str(), "ada");
    assert_eq!(logged.metadata.as_json(), r#"{"answer":8}"#);
}

/// What the client's own HTTP traces is no log, even where it is marked.
#[test]
fn nothing_of_the_clients_own_thread_is_logged() {
    let (client, recorder) = recorded();
    let logging = client.clone();
    let hook = move |_: &eyego_log_client::Loss<'_>| {
        let layer = eyego_log_client::tracing::TracingLayer::new(logging.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(userId = "the client", action = "LOOP");
        });
    };
    let failing = Recorder::new();
    failing.respond_with([Response::new(404, "")]);
    let losing = quick("http://test").transport(failing).on_loss(hook).build().unwrap();
    assert!(blocking::wait(losing.send(Event::new("ada", "A"))).is_err());
    let _ = blocking::wait(losing.shutdown());
    let _ = blocking::wait(client.flush());
    recorder.assert_none("LOOP");
}
