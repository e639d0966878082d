//! Kafka and MongoDB as services of `docker-compose.yml`, if a Docker engine is available.
//!
//! The services stay up, so that the next run starts at once; `docker compose down` stops them.
//! Runs do not interfere, because names are unique per test ([`crate::unique`]).

use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::download::{run, succeeds, workspace_dir};

/// Where `docker-compose.yml` publishes Kafka.
pub(crate) const KAFKA: &str = "127.0.0.1:9092";
/// Where `docker-compose.yml` publishes MongoDB. The connection is direct, because the set's member
/// has a name that only the compose network resolves.
pub(crate) const MONGODB: &str = "mongodb://127.0.0.1:27017/?directConnection=true";

/// Starts the compose service, or else the local process. Returns `None` for the service, which is
/// then reachable at its published address.
///
/// # Errors
/// Returns the errors of both if neither starts.
pub(crate) async fn service_or_local<T>(
    service: &'static str,
    local: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let up = move || is_available().then(|| up(service));
    match tokio::task::spawn_blocking(up).await? {
        None => local.await.map(Some),
        Some(Ok(())) => Ok(None),
        Some(Err(error)) => {
            let started = local.await.map(Some);
            started.with_context(|| format!("after the compose service failed: {error:#}"))
        }
    }
}

/// Returns whether there is an engine, and a client that supports `compose`.
fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        succeeds("docker", &["info"]) && succeeds("docker", &["compose", "version"])
    })
}

/// Starts a service and waits until its health check passes.
fn up(service: &str) -> Result<()> {
    run(Command::new("docker")
        .args(["compose", "--file"])
        .arg(workspace_dir()?.join("docker-compose.yml"))
        .args(["up", "--detach", "--wait", service]))
    .with_context(|| format!("cannot start the compose service {service}"))
}
