//! The SDK against a server with keys.

use std::time::Duration;

use eyego_log_client::{Client, Event};
use stack::keys::KeysFile;
use stack::server::Server;

use super::with_keys;
use crate::fixture::{TIMEOUT, ready};

fn sdk(server: &Server, token: &str) -> Client {
    let builder = Client::builder(server.base_url()).linger(Duration::from_millis(10));
    builder.api_key(token).build().unwrap()
}

#[tokio::test]
async fn the_sdk_sends_and_reads_with_a_key() {
    let keys = KeysFile::new().unwrap();
    let token = keys.add("sdk", &["ingest", "read"]).unwrap();
    let server = ready(with_keys(&keys)).await;
    let client = sdk(&server, &token);
    let id = client.send(Event::new("ada", "CLICK")).await.unwrap();
    stack::eventually("the event to be stored", TIMEOUT, async || {
        anyhow::ensure!(client.query().get(id).await?.is_some(), "not yet");
        Ok(())
    })
    .await
    .unwrap();

    let reader = keys.add("reader", &["read"]).unwrap();
    server.restart().await.unwrap();
    let client = sdk(&server, &reader);
    client.log(Event::new("ada", "CLICK")).unwrap();
    let report = client.flush_within(TIMEOUT).await;
    assert!(!report.all_delivered(), "{report:?}");
    let error = client.send(Event::new("ada", "CLICK")).await.unwrap_err().to_string();
    assert!(error.contains("ingest"), "the missing scope: {error}");
}

#[tokio::test]
async fn the_sdk_waits_and_splits_as_the_rate_limit_requires() {
    let keys = KeysFile::new().unwrap();
    let token = keys.add_with("sdk", &["ingest"], "rate = \"50/s\"").unwrap();
    let server = ready(with_keys(&keys)).await;
    let client = sdk(&server, &token);
    for n in 0..120 {
        client.log(Event::new("ada", "CLICK").metadata(serde_json::json!({"n": n}))).unwrap();
    }
    let report = client.flush_within(TIMEOUT * 3).await;
    assert!(report.all_delivered(), "{report:?} {:?}", client.stats());
}

#[tokio::test]
async fn the_sdk_loses_nothing_while_its_key_is_replaced() {
    let keys = KeysFile::new().unwrap();
    let old = keys.add("old", &["ingest"]).unwrap();
    let server = ready(with_keys(&keys)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, &old).unwrap();
    let builder = Client::builder(server.base_url()).linger(Duration::from_millis(10));
    let client = builder.api_key_file(&file).build().unwrap();
    client.send(Event::new("ada", "BEFORE")).await.unwrap();

    // The old key is revoked before the caller has the new one.
    keys.remove("old").unwrap();
    let new = keys.add("new", &["ingest"]).unwrap();
    let refused = reqwest::Client::new().get(format!("{}/nothing", server.base_url()));
    stack::eventually("the old key to be revoked", TIMEOUT, async || {
        let status = refused.try_clone().unwrap().bearer_auth(&old).send().await?.status();
        anyhow::ensure!(status == 401, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    for _ in 0..100 {
        client.log(Event::new("ada", "BETWEEN")).unwrap();
    }
    std::fs::write(&file, &new).unwrap();
    let report = client.flush_within(TIMEOUT * 2).await;
    assert!(report.all_delivered(), "{report:?} {:?}", client.stats());
}
