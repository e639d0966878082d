//! The server process: its shutdown, and the lock of its data directory.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use stack::eventually;
use stack::process::Signal;
use stack::server::Server;

use super::server_with;
use crate::fixture::{embedded_server, get, post_log, stored};

#[tokio::test]
async fn first_signal_stops_gracefully_and_second_one_at_once() {
    let server = embedded_server().await;
    let (_, response) = post_log(&server, &json!({"userId": "u", "action": "A"})).await;
    let status = server.terminate().await.unwrap();
    assert!(status.success(), "{status}");
    server.restart().await.unwrap();
    stored(&server, response["id"].as_str().unwrap()).await;

    let server = server_with(&[("EYEGO_SHUTDOWN_DELAY", "60s")]).await;
    server.signal(Signal::Terminate).unwrap();
    // It stops being ready, and keeps serving.
    eventually("the server to be unready", Duration::from_secs(5), async || {
        let (status, body) = get(&server, "/health/ready").await;
        ensure!(status == 503, "{status}: {body}");
        assert_eq!(body["message"], "stopping");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(post_log(&server, &json!({"userId": "u", "action": "A"})).await.0, 202);
    server.signal(Signal::Terminate).unwrap();
    let status = server.wait_exit(Duration::from_secs(2)).await.unwrap();
    assert!(!status.success());
}

#[tokio::test]
async fn second_process_on_the_data_directory_exits_with_a_reason() {
    let server = embedded_server().await;
    let second = Server::builder().data_dir(server.data_dir()).launch().await.unwrap();
    let status = second.wait_exit(Duration::from_secs(10)).await.unwrap();
    assert!(!status.success());
    assert!(second.log().contains("another process"), "{}", second.log());
}
