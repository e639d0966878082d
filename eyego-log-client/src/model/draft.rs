//! An event that the program's own function may change before it is buffered.

use std::borrow::Cow;

use eyego_log_core::{LogId, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::event::Event;

/// A valid event before it is buffered, as
/// [`ClientBuilder::before_send`](crate::ClientBuilder::before_send) receives it.
///
/// ```
/// use eyego_log_client::{Client, DraftEvent};
///
/// let client = Client::builder("http://localhost:3000")
///     .before_send(|mut event: DraftEvent| {
///         event.metadata.remove("password");
///         // Events of health checks are not logged.
///         (event.action != "HEALTH_CHECK").then_some(event)
///     })
///     .build()?;
/// # Ok::<(), eyego_log_client::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DraftEvent {
    id: LogId,
    /// The user's id.
    pub user_id: String,
    /// The action.
    pub action: String,
    /// The time of the action.
    pub timestamp: Timestamp,
    /// The metadata, including that of the client and its scopes.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl DraftEvent {
    /// Reads a line that the encoder wrote.
    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Returns the event's id, which cannot be changed.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    pub(crate) fn to_event(&self) -> Event<'_, &Map<String, Value>> {
        let Self { id, user_id, action, timestamp, metadata } = self;
        let event = Event::new(Cow::from(user_id.as_str()), Cow::from(action.as_str()));
        event.timestamp(*timestamp).id(*id).metadata(metadata)
    }
}
