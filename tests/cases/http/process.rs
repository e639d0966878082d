//! The process behind the API: how it ends, and that there is one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::json;
use stack::server::Server;

use super::api::Api;

#[tokio::test]
async fn a_stop_is_clean_and_its_second_signal_immediate() -> Result<()> {
    let api = Api::start().await?;
    let (_, answer) = api.log(json!({"userId": "u", "action": "A"})).await?;
    let status = api.server.terminate().await?;
    assert!(status.success(), "{status}");
    api.server.restart().await?;
    api.stored(answer["id"].as_str().context("no id")?).await?;

    let api = Api::with(&[("EYEGO_SHUTDOWN_DELAY", "60s")]).await?;
    api.server.signal(stack::process::Signal::Terminate)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        // Still serving, already unready.
        let (status, body) = api.get("/health/ready").await?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(body["message"], "stopping");
            break;
        }
        ensure!(Instant::now() < deadline, "still ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(api.log(json!({"userId": "u", "action": "A"})).await?.0, StatusCode::ACCEPTED);
    api.server.signal(stack::process::Signal::Terminate)?;
    let status = api.server.wait_exit(Duration::from_secs(2)).await?;
    assert!(!status.success());
    Ok(())
}

#[tokio::test]
async fn a_second_process_on_the_data_directory_stops_with_a_reason() -> Result<()> {
    let api = Api::start().await?;
    let second = Server::builder().data_dir(api.server.data_dir()).launch().await?;
    let status = second.wait_exit(Duration::from_secs(10)).await?;
    assert!(!status.success());
    assert!(second.log().contains("another process"), "{}", second.log());
    Ok(())
}
