//! `eyego-log-server health`.

use std::time::Duration;

use super::client;

/// A health check must not wait for a server that hangs.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if the server listening at `address` is ready.
///
/// # Errors
/// Returns an error if the server is not ready or cannot be reached.
pub(super) fn check(address: &str) -> anyhow::Result<()> {
    let response = client::request(address, "GET", "/health/ready", "", TIMEOUT)?;
    anyhow::ensure!(response.status == 200, "not ready: {}", response.body);
    Ok(())
}
