//! `eyego-log-server health`.

use std::time::Duration;

use super::client::Target;

/// A health check must not wait for a server that hangs.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if the server at `target` is ready.
///
/// # Errors
/// Returns an error if the server is not ready or cannot be reached.
pub(super) fn check(target: &Target) -> anyhow::Result<()> {
    let response = target.request("GET", "/health/ready", "", TIMEOUT)?;
    anyhow::ensure!(response.status == 200, "not ready: {}", response.body);
    Ok(())
}
