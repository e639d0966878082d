//! The handling of a server process, tried on a stand-in: this test executable itself.

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::signal::unix::{SignalKind, signal};

use super::{Server, ServerBuilder};

/// Set in the process that plays the server; elsewhere its part of the test does nothing.
const ROLE: &str = "STACK_TEST_SERVER";

#[tokio::test]
async fn stand_in() -> Result<()> {
    if std::env::var_os(ROLE).is_none() {
        return Ok(());
    }
    assert!(std::env::var_os("EYEGO_FORGOTTEN").is_none());
    let data = std::path::PathBuf::from(std::env::var("EYEGO_DATA_DIR")?);
    let ready = move || async move {
        if data.join("ready").exists() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    };
    let routes =
        Router::new().route("/health/live", get("live")).route("/health/ready", get(ready));
    let listener = tokio::net::TcpListener::bind(std::env::var("EYEGO_LISTEN")?).await?;
    println!("listening, greeting {}", std::env::var("EYEGO_GREETING")?);
    let mut terminated = signal(SignalKind::terminate())?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move { terminated.recv().await.unwrap_or_default() })
        .await?;
    Ok(())
}

fn builder() -> Result<ServerBuilder> {
    Ok(Server::builder()
        .binary(std::env::current_exe()?)
        .arg("--exact")
        .arg("server::tests::stand_in")
        .arg("--nocapture")
        .env(ROLE, "1")
        .env("EYEGO_GREETING", "hello"))
}

#[tokio::test]
async fn a_server_is_started_frozen_killed_and_started_again() -> Result<()> {
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(10));
    let server = builder()?.start().await?;
    let error = server.wait_ready(short).await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("greeting hello"), "{error}");
    std::fs::create_dir_all(server.data_dir())?;
    std::fs::write(server.data_dir().join("ready"), "")?;
    server.wait_ready(long).await?;
    assert!(server.rss_bytes()? > 100_000);
    assert!(server.cpu_seconds()? >= 0.0);

    server.pause()?;
    assert!(server.wait_live(short).await.is_err());
    server.resume()?;
    server.wait_live(long).await?;

    let (url, pid) = (server.base_url(), server.pid()?);
    server.kill()?;
    assert!(!server.is_running() && server.pid().is_err());
    server.restart().await?;
    assert_eq!(server.base_url(), url);
    assert_ne!(server.pid()?, pid);
    assert_eq!(server.log().matches("greeting hello").count(), 2);
    assert!(server.terminate().await?.success(), "{}", server.log());
    Ok(())
}

#[tokio::test]
async fn a_server_that_ends_instead_shows_its_log() -> Result<()> {
    let server = Server::builder().binary("no-such-program").launch().await?;
    let error = server.wait_live(Duration::from_secs(10)).await.unwrap_err().to_string();
    assert!(error.contains("no-such-program"), "{error}");
    Ok(())
}

/// Cases run servers from spawned tasks as well: the futures must be `Send`.
#[test]
fn futures_can_be_sent() {
    fn sendable<T: Send>(_: &T) {}
    sendable(&Server::builder().start());
    sendable(&crate::kafka::Kafka::start(crate::kafka::KafkaOptions::default()));
    sendable(&crate::mongodb::Mongo::start(crate::mongodb::MongoOptions::default()));
}
