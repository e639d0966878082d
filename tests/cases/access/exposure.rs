//! What listens where: the refusal to listen for other hosts without a decision, the address for
//! operations, and the commands that create and use keys.

use anyhow::{Context as _, ensure};
use stack::eventually;
use stack::keys::KeysFile;
use stack::server::{Server, ServerBuilder};

use super::{SCOPES, post_event, refused_start, send, with_keys};
use crate::fixture::{TIMEOUT, ready, url};

#[tokio::test]
async fn other_hosts_are_not_served_without_a_decision() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let log = refused_start(Server::builder().env("EYEGO_LISTEN", address)).await;
        assert!(log.contains("EYEGO_KEYS_FILE") && log.contains("EYEGO_AUTH=none"), "{log}");
    }
    let operations = Server::builder().env("EYEGO_OPERATIONS_LISTEN", "0.0.0.0:0");
    let log = refused_start(operations).await;
    assert!(log.contains("EYEGO_AUTH=none"), "{log}");

    let keys = KeysFile::new().unwrap();
    keys.add("all", &SCOPES).unwrap();
    for builder in [Server::builder().env("EYEGO_AUTH", "none"), with_keys(&keys)] {
        let server = builder.env("EYEGO_LISTEN", "0.0.0.0:0").launch().await.unwrap();
        eventually("the server to listen", TIMEOUT, async || {
            ensure!(server.log().contains("listening"), "{}", server.log());
            Ok(())
        })
        .await
        .unwrap();
    }
    let both = with_keys(&keys).env("EYEGO_AUTH", "none");
    assert!(refused_start(both).await.contains("contradicts EYEGO_KEYS_FILE"));
}

#[tokio::test]
async fn address_that_cannot_be_bound_is_reported_with_its_variable() {
    for (variable, address) in
        [("EYEGO_LISTEN", "no address"), ("EYEGO_OPERATIONS_LISTEN", "localhost:99999")]
    {
        let log = refused_start(Server::builder().env(variable, address)).await;
        assert!(log.contains(&format!("{variable}: cannot listen on {address}")), "{log}");
    }
}

/// Starts a server with an address for operations, and returns its base URL.
async fn with_operations(builder: ServerBuilder) -> (Server, String) {
    let server = builder.env("EYEGO_OPERATIONS_LISTEN", "127.0.0.1:0").launch().await.unwrap();
    let address = eventually("the server to listen for operations", TIMEOUT, async || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("listening for operations"));
        let address = line.and_then(|line| line.split("address=").nth(1));
        Ok(address.context(log.clone())?.trim().to_owned())
    });
    let address = address.await.unwrap();
    (server, format!("http://{address}"))
}

#[tokio::test]
async fn metrics_and_health_can_have_their_own_address() {
    let keys = KeysFile::new().unwrap();
    let token = keys.add("all", &SCOPES).unwrap();
    let (server, operations) = with_operations(with_keys(&keys)).await;
    let client = super::client(&token);
    eventually("readiness", TIMEOUT, async || {
        let response = send(reqwest::Client::new().get(format!("{operations}/health/ready"))).await;
        ensure!(response.status == 200, "{}", response.body);
        Ok(())
    })
    .await
    .unwrap();
    for (path, on_main, on_operations) in [
        ("/health/live", 404, 200),
        ("/health/ready", 404, 200),
        ("/metrics", 404, 200),
        ("/api/v1/logs", 200, 404),
    ] {
        assert_eq!(send(client.get(url(&server, path))).await.status, on_main, "{path}");
        let response = send(client.get(format!("{operations}{path}"))).await;
        assert_eq!(response.status, on_operations, "{path}");
    }
    let without = send(reqwest::Client::new().get(format!("{operations}/metrics"))).await;
    assert_eq!(without.status, 401);
    assert_eq!(post_event(&server, &token).await.status, 202);
    assert!(server.terminate().await.unwrap().success());
}

/// Runs a command of the server's binary, and returns whether it succeeded and what it printed.
async fn command(builder: ServerBuilder, args: &[&str]) -> (bool, String) {
    let command = args.iter().fold(builder, ServerBuilder::arg).launch().await.unwrap();
    let status = command.wait_exit(TIMEOUT).await.unwrap();
    (status.success(), command.log())
}

#[tokio::test]
async fn a_created_key_is_accepted_and_commands_use_it() {
    let (succeeded, output) = command(
        Server::builder(),
        &[
            "keys",
            "new",
            "--id",
            "ops",
            "--scope",
            "admin,ingest",
            "--rate",
            "50/s",
            "--expires",
            "2099-01-01T00:00:00Z",
        ],
    )
    .await;
    assert!(succeeded, "{output}");
    let token = output.lines().find(|line| line.starts_with("eyego_ops_")).unwrap().to_owned();
    let entry = output.replace(&token, "");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    std::fs::write(&path, &entry).unwrap();
    let (succeeded, output) =
        command(Server::builder(), &["keys", "check", path.to_str().unwrap()]).await;
    let expected = "ops: admin, ingest, 50/s, burst 50, expires 2099-01-01T00:00:00.000Z";
    assert!(succeeded && output.contains(expected), "{output}");

    let server = ready(Server::builder().env("EYEGO_KEYS_FILE", &path)).await;
    assert_eq!(post_event(&server, &token).await.status, 202);
    let builder = || Server::builder().port(server.port());
    let list = ["dead-letters", "list"];
    let (succeeded, output) = command(builder().env("EYEGO_LOG_API_KEY", &token), &list).await;
    assert!(succeeded && output.contains("\"results\": 0"), "{output}");
    let (succeeded, output) = command(builder(), &list).await;
    assert!(!succeeded && output.contains("401"), "{output}");
    let (succeeded, output) = command(builder(), &["health"]).await;
    assert!(succeeded, "{output}");

    std::fs::write(&path, entry.replace("admin", "amdin")).unwrap();
    let (succeeded, output) =
        command(Server::builder(), &["keys", "check", path.to_str().unwrap()]).await;
    assert!(!succeeded && output.contains("unknown scope `amdin`"), "{output}");
    for args in [
        &["keys", "new", "--id", "a b", "--scope", "read"][..],
        &["keys", "new", "--id", "a", "--scope", "write"],
        &["keys", "new", "--id", "a", "--scope", "read", "--burst", "5"],
    ] {
        let (succeeded, output) = command(Server::builder(), args).await;
        assert!(!succeeded && output.contains("error: "), "{output}");
    }
}
