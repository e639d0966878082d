//! Shuts a client down at the end of a scope.

use std::time::Duration;

use crate::api::client::Client;
use crate::model::report::Report;

/// Shuts the client down when it is dropped, and blocks the thread for up to the
/// [`shutdown_timeout`](crate::ClientBuilder::shutdown_timeout) until that is done. See
/// [`Client::guard`](crate::Client::guard).
///
/// If events are left then, their number is reported through `tracing`.
#[derive(Debug)]
#[must_use = "a guard that is dropped immediately shuts the client down immediately"]
pub struct Guard {
    client: Client,
    timeout: Duration,
}

impl Guard {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Sets how long the drop waits at most, and up to 250 ms more if the client's
    /// thread or a function of the program blocks.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let report = self.client.shutdown_blocking(self.timeout);
        if !report.is_settled() {
            let Report { unsettled, .. } = report;
            tracing::warn!(
                target: "eyego_log_client",
                "the client was shut down with {unsettled} undelivered events"
            );
        }
    }
}
