//! Tests of [`Server`] on a substitute for the server: this test executable itself.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::signal::unix::{SignalKind, signal};

use super::{Server, ServerBuilder};

/// The process that takes the place of the server.
#[tokio::test]
#[ignore = "run as a child by server_is_frozen_killed_and_restarted"]
async fn child_that_serves_health() {
    assert!(std::env::var_os("EYEGO_NOT_PASSED_ON").is_none());
    let data = std::path::PathBuf::from(std::env::var("EYEGO_DATA_DIR").unwrap());
    let ready = move || async move {
        if data.join("ready").exists() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    };
    let routes =
        Router::new().route("/health/live", get("live")).route("/health/ready", get(ready));
    let address = std::env::var("EYEGO_LISTEN").unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    println!("listening, greeting {}", std::env::var("EYEGO_GREETING").unwrap());
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move { terminated.recv().await.unwrap_or_default() })
        .await
        .unwrap();
}

fn builder() -> ServerBuilder {
    Server::builder()
        .binary(std::env::current_exe().unwrap())
        .arg("--ignored")
        .arg("--exact")
        .arg("server::tests::child_that_serves_health")
        .arg("--nocapture")
        .env("EYEGO_GREETING", "hello")
}

#[tokio::test]
async fn server_is_frozen_killed_and_restarted() {
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(10));
    let server = builder().start().await.unwrap();
    let error = server.wait_ready(short).await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("greeting hello"), "{error}");
    std::fs::create_dir_all(server.data_dir()).unwrap();
    std::fs::write(server.data_dir().join("ready"), "").unwrap();
    server.wait_ready(long).await.unwrap();
    assert!(server.rss_bytes().unwrap() > 100_000);
    assert!(server.cpu_seconds().unwrap() >= 0.0);

    server.pause().unwrap();
    assert!(server.wait_live(short).await.is_err());
    server.resume().unwrap();
    server.wait_live(long).await.unwrap();

    let (url, pid) = (server.base_url(), server.pid().unwrap());
    server.kill().unwrap();
    assert!(!server.is_running() && server.pid().is_err());
    server.restart().await.unwrap();
    assert_eq!(server.base_url(), url);
    assert_ne!(server.pid().unwrap(), pid);
    assert_eq!(server.log().matches("greeting hello").count(), 2);
    assert!(server.terminate().await.unwrap().success(), "{}", server.log());
}

#[tokio::test]
async fn error_shows_the_log_of_a_server_that_exits() {
    let server = Server::builder().binary("no-such-program").launch().await.unwrap();
    let error = server.wait_live(Duration::from_secs(10)).await.unwrap_err().to_string();
    assert!(error.contains("no-such-program"), "{error}");
}

/// Tests also start servers from spawned tasks.
#[test]
fn futures_are_send() {
    fn assert_send<T: Send>(_: &T) {}
    assert_send(&Server::builder().start());
    assert_send(&crate::kafka::Kafka::start(crate::kafka::KafkaOptions::default()));
    assert_send(&crate::mongodb::Mongo::start(crate::mongodb::MongoOptions::default()));
}
