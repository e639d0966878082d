//! Response bodies of the HTTP API.

use serde::{Deserialize, Serialize};

use crate::{FieldErrors, LogEntry, LogId};

/// Outcome of a request: `status` in the envelope of every response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The request succeeded (2xx).
    Success,
    /// The request is invalid (4xx).
    Fail,
    /// The server failed (5xx).
    Error,
}

/// Response to one ingested event. A 503 has this body too: a retry with the id
/// cannot duplicate the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IngestResponse {
    /// Outcome of the request.
    pub status: Status,
    /// Human-readable outcome.
    pub message: String,
    /// Unique event id.
    pub id: LogId,
}

/// Response to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchResponse {
    /// Outcome of the request: `success` if any event was queued.
    pub status: Status,
    /// Human-readable outcome.
    pub message: String,
    /// Number of events that are durably queued.
    pub accepted: usize,
    /// Id of each item in request order, null for an invalid item. Present if
    /// the server generated or derived at least one id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<Option<LogId>>>,
    /// Items that are not queued, with the reason.
    pub rejected: Vec<RejectedItem>,
}

/// One item of a batch that is not queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedItem {
    /// Index in the request, from 0.
    pub index: usize,
    /// Event id, if it is known.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub id: Option<LogId>,
    /// Machine-readable reason.
    pub code: RejectionCode,
    /// Human-readable reason.
    pub message: String,
    /// Invalid fields. Empty if the reason is not an invalid field.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub errors: FieldErrors,
    /// Whether the item can be accepted if it is sent again unchanged.
    pub retryable: bool,
}

/// The reason an item of a batch is not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectionCode {
    /// The item is not JSON or has invalid fields.
    Invalid,
    /// The item is larger than the limit for an event.
    TooLarge,
    /// The queue is full.
    QueueFull,
    /// The queue did not acknowledge the item.
    QueueUnavailable,
}

impl RejectionCode {
    /// Returns `true` if the item can be accepted if it is sent again unchanged.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Invalid | Self::TooLarge => false,
            Self::QueueFull | Self::QueueUnavailable => true,
        }
    }
}

/// Response with a page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LogsPage {
    /// Outcome of the request.
    pub status: Status,
    /// Number of events in this page.
    pub results: usize,
    /// Number of this page, from 1. Always 1 if the request had a cursor.
    pub page: u64,
    /// The events.
    pub data: Vec<LogEntry>,
    /// Cursor of the next page. Null on the last page.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub next_cursor: Option<String>,
}

/// Response with one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogResponse {
    /// Outcome of the request.
    pub status: Status,
    /// The event.
    pub data: LogEntry,
}

/// Response to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorResponse {
    /// Outcome of the request.
    pub status: Status,
    /// Human-readable description of the error.
    pub message: String,
    /// Invalid fields. Empty if the error is not an invalid field.
    #[serde(default, skip_serializing_if = "FieldErrors::is_empty")]
    pub errors: FieldErrors,
}
