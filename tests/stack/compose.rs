//! Kafka and MongoDB as services of `docker-compose.yml`, where a docker engine runs.
//!
//! The services stay up for the next run, which then starts at once; `docker compose down` ends
//! them. Names are unique per test ([`crate::unique`]), so that runs do not meet.

use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::download::{run, works, workspace_dir};

/// What `docker-compose.yml` publishes to the host.
pub(crate) const KAFKA: &str = "127.0.0.1:9092";
/// One member whose name only the compose network knows: hence the direct connection.
pub(crate) const MONGODB: &str = "mongodb://127.0.0.1:27017/?directConnection=true";

/// Whether there is an engine, and a client that knows `compose`.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE
        .get_or_init(|| works("docker", &["info"]) && works("docker", &["compose", "version"]))
}

/// Starts a service and returns once its healthcheck is content.
pub(crate) fn up(service: &str) -> Result<()> {
    run(Command::new("docker")
        .args(["compose", "--file"])
        .arg(workspace_dir()?.join("docker-compose.yml"))
        .args(["up", "--detach", "--wait", service]))
    .with_context(|| format!("cannot start the compose service {service}"))
}
