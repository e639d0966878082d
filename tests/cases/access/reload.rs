//! Keys that change while the server runs.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use stack::eventually;
use stack::server::Server;

use super::{SCOPES, post_event, refused_start, server_with_token};
use crate::fixture::{TIMEOUT, get};

/// The time in which a removed key must be revoked.
const REVOKED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_removed_key_is_revoked_and_a_new_one_accepted_within_10_seconds() {
    let (server, keys, old) = server_with_token().await;
    assert_eq!(post_event(&server, &old).await.status, 202);
    let new = keys.add("new", &SCOPES).unwrap();
    keys.remove("all").unwrap();
    eventually("the old key to be revoked", REVOKED, async || {
        let (old, new) = (post_event(&server, &old).await, post_event(&server, &new).await);
        ensure!((old.status, new.status) == (401, 202), "{} {}", old.status, new.status);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_error_in_a_changed_file_keeps_the_keys_and_turns_readiness_to_a_warning() {
    let (server, keys, token) = server_with_token().await;
    let good = std::fs::read_to_string(keys.path()).unwrap();
    let part = async || {
        let (status, body) = get(&server, "/health/ready").await;
        assert_eq!(status, 200, "{body}");
        body["parts"]["keys"].clone()
    };
    assert_eq!(part().await["state"], "up");
    for bad in [good.replace("ingest", "injest"), String::new(), "[[key".to_owned()] {
        std::fs::write(keys.path(), &bad).unwrap();
        eventually("the warning", TIMEOUT, async || {
            let part = part().await;
            ensure!(part["state"] == "warning", "{part}");
            let reason = part["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains("stays in effect") && reason.contains("line "), "{part}");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(post_event(&server, &token).await.status, 202, "{bad}");
        std::fs::write(keys.path(), &good).unwrap();
        eventually("the warning to end", TIMEOUT, async || {
            let part = part().await;
            ensure!(part["state"] == "up", "{part}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_pipe_or_a_device_in_place_of_the_file_neither_stops_the_start_nor_the_reload() {
    let (server, keys, token) = server_with_token().await;
    let good = std::fs::read_to_string(keys.path()).unwrap();
    let pipe = keys.path().with_extension("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for odd in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/")] {
        std::fs::remove_file(keys.path()).unwrap();
        std::os::unix::fs::symlink(odd, keys.path()).unwrap();
        eventually("the warning", TIMEOUT, async || {
            let (_, body) = get(&server, "/health/ready").await;
            let reason = body["parts"]["keys"]["reason"].as_str().unwrap_or_default().to_owned();
            ensure!(reason.contains("not a regular file"), "{body}");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(post_event(&server, &token).await.status, 202, "{odd:?}");
        let log = refused_start(Server::builder().env("EYEGO_KEYS_FILE", odd)).await;
        assert!(log.contains("EYEGO_KEYS_FILE: cannot read") && log.contains("regular"), "{log}");
        std::fs::remove_file(keys.path()).unwrap();
        std::fs::write(keys.path(), &good).unwrap();
        eventually("the warning to end", TIMEOUT, async || {
            let (_, body) = get(&server, "/health/ready").await;
            ensure!(body["parts"]["keys"]["state"] == "up", "{body}");
            Ok(())
        })
        .await
        .unwrap();
    }
}
