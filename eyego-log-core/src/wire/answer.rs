//! What callers are answered.

use serde::{Deserialize, Serialize};

use crate::{FieldErrors, LogEntry, LogId};

/// How an answer ended: `status` in its envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was done (2xx).
    Success,
    /// The caller's fault (4xx).
    Fail,
    /// The server's fault (5xx).
    Error,
}

/// The answer to one ingested log; also on a 503, where the id lets a retry be
/// the same log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestAnswer {
    /// How it ended.
    pub status: Status,
    /// The same for people.
    pub message: String,
    /// The log's identity.
    pub id: LogId,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// How it ended: `success` if anything was queued.
    pub status: Status,
    /// The same for people.
    pub message: String,
    /// How many are queued durably.
    pub accepted: usize,
    /// One for each item in the request's order, `None` for an invalid one;
    /// there whenever the server minted or derived any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<Option<LogId>>>,
    /// The items that are not queued, and why.
    pub rejected: Vec<RejectedItem>,
}

/// One item of a batch that is not queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedItem {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Its identity, where it is known.
    pub id: Option<LogId>,
    /// Why.
    pub code: RejectionCode,
    /// The same for people.
    pub message: String,
    /// The faults of its fields; empty where none is at fault.
    #[serde(default)]
    pub errors: FieldErrors,
    /// Whether sending it again, unchanged, can help.
    pub retryable: bool,
}

/// Why an item of a batch is not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectionCode {
    /// It is not JSON, or has faults.
    Invalid,
    /// It is larger than an event may be.
    TooLarge,
    /// The queue is full.
    QueueFull,
    /// The queue did not acknowledge it.
    QueueUnavailable,
}

impl RejectionCode {
    /// Whether sending the same item again can help.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Invalid | Self::TooLarge => false,
            Self::QueueFull | Self::QueueUnavailable => true,
        }
    }
}

/// A page of logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsPage {
    /// How it ended.
    pub status: Status,
    /// How many logs are in this page.
    pub results: usize,
    /// Which page this is, from 1; always 1 where a cursor led here.
    pub page: u64,
    /// The logs.
    pub data: Vec<LogEntry>,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<String>,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogAnswer {
    /// How it ended.
    pub status: Status,
    /// The log.
    pub data: LogEntry,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub status: Status,
    /// What is wrong, for people.
    pub message: String,
    /// The faults of the fields; empty where none is at fault.
    #[serde(default, skip_serializing_if = "FieldErrors::is_empty")]
    pub errors: FieldErrors,
}
