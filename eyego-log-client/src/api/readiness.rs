//! The readiness of the server and its parts.

use std::collections::BTreeMap;

use eyego_log_core::wire::Status;
use serde::Deserialize;

use crate::api::caller::decode;
use crate::api::client::Client;
use crate::model::errors::RequestError;

/// Whether the server is ready, and the state of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// Whether the server does the work of its role: for most, an event that is
    /// posted now would be queued.
    pub is_ready: bool,
    /// The server's message. It says what prevents readiness.
    pub message: String,
    /// The parts by name, such as `kafka`, `mongodb`, `queue`, `store`, `spool` and
    /// `worker`.
    pub parts: BTreeMap<String, PartHealth>,
}

/// The health of a part of the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct PartHealth {
    /// The state of the part.
    pub state: PartState,
    /// Why it is not up. Names the host, topic or limit.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The state of a part of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PartState {
    /// The part works.
    Up,
    /// The part works, but something needs attention.
    Warning,
    /// The part does not work.
    Down,
    /// A state that this version of the client does not know.
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct ReadinessResponse {
    status: Status,
    message: String,
    #[serde(default)]
    parts: BTreeMap<String, PartHealth>,
}

impl Client {
    /// Reads whether the server is ready, and why not. A server that is not ready
    /// (status 503) is not an error. An API key needs no scope.
    ///
    /// If the server has an address of its own for operations
    /// (`EYEGO_OPERATIONS_LISTEN`), build a client with that address.
    ///
    /// # Errors
    /// Returns a [`RequestError`] if there is no valid response.
    ///
    /// ```no_run
    /// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::RequestError> {
    /// let readiness = client.readiness().await?;
    /// for (name, part) in &readiness.parts {
    ///     println!("{name}: {:?} {}", part.state, part.reason.as_deref().unwrap_or_default());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn readiness(&self) -> Result<Readiness, RequestError> {
        let response = self.caller().readiness().await?;
        let ReadinessResponse { status, message, parts } = decode(&response)?;
        Ok(Readiness { is_ready: status == Status::Success, message, parts })
    }
}
