//! The error types of the public calls, one for each kind of call.

use std::time::Duration;
use std::{fmt, io};

use eyego_log_core::{FieldErrors, LogId};

use crate::model::loss_reason::LossReason;

/// The reason why an event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// One or more fields are invalid. The messages are the same as the
    /// server's. The event is counted in
    /// [`Stats::invalid`](crate::Stats::invalid).
    #[error("{0}")]
    Invalid(FieldErrors),
    /// The event is larger than
    /// [`ClientBuilder::max_event_bytes`](crate::ClientBuilder::max_event_bytes)
    /// allows. The event is counted in [`Stats::invalid`](crate::Stats::invalid).
    #[error("the event has {bytes} bytes, but max_event_bytes is {max}")]
    TooLarge {
        /// The size of the event as JSON with its line break, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The buffer is full. The event is counted as lost
    /// ([`LossReason::Overflow`]), except by
    /// [`Client::try_log`](crate::Client::try_log), whose caller keeps it.
    #[error("the buffer is full")]
    Full,
    /// The client was shut down, or its worker thread failed permanently. The
    /// event is counted as lost ([`LossReason::Shutdown`] or
    /// [`LossReason::WorkerFailed`]), except by
    /// [`Client::try_log`](crate::Client::try_log), whose caller keeps it.
    #[error("the client is shut down")]
    Closed,
    /// The process was forked after the client was built, and this is the
    /// child, in which nothing would deliver the event. The event is counted as
    /// lost ([`LossReason::Forked`]).
    #[error("the client was built before a fork; build a new one in the child process")]
    Forked,
}

/// The reason why an awaited event was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The event was not accepted.
    #[error(transparent)]
    NotAccepted(#[from] LogError),
    /// The event was accepted, then lost and counted as such.
    #[error("event {id} was lost ({reason}): {message}")]
    Lost {
        /// The event's id.
        id: LogId,
        /// Why the event was lost.
        reason: LossReason,
        /// A description for people.
        message: String,
    },
    /// The event was delivered, but another event is stored under its id, which
    /// stays. The server keeps this one as a dead letter. Only
    /// [`Client::send_stored`](crate::Client::send_stored) returns this.
    #[error("event {id} was not stored, because another event has its id: {message}")]
    Conflict {
        /// The event's id.
        id: LogId,
        /// The server's message.
        message: String,
    },
    /// The event was delivered, but the server refuses to tell whether it is
    /// stored. Only [`Client::send_stored`](crate::Client::send_stored) returns
    /// this.
    #[error("event {id} was delivered, but it is unknown whether it is stored: {error}")]
    Unconfirmed {
        /// The event's id.
        id: LogId,
        /// The response to the question.
        #[source]
        error: RequestError,
    },
    /// The client was shut down before the event was delivered. The event
    /// remains in the spool, and the next process that opens the same directory
    /// delivers it.
    #[error("event {id} was not delivered before shutdown and remains in the spool")]
    Spooled {
        /// The event's id.
        id: LogId,
    },
}

/// The reason why a client could not be built: an option and its problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {problem}")]
pub struct ConfigError {
    option: &'static str,
    problem: String,
}

impl ConfigError {
    /// `problem` completes a sentence whose subject is `option`.
    pub(crate) fn new(option: &'static str, problem: impl fmt::Display) -> Self {
        Self { option, problem: problem.to_string() }
    }

    pub(crate) fn with_note(self, note: &str) -> Self {
        Self { problem: format!("{} ({note})", self.problem), ..self }
    }

    /// Returns the name of the invalid option: a builder method or an
    /// environment variable.
    #[must_use]
    pub fn option(&self) -> &str {
        self.option
    }
}

/// The reason why a query or another call of the server's API failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The server responded with an error status.
    #[error("{0}")]
    Status(StatusError),
    /// The server could not be reached or did not respond in time.
    #[error("no response from the server: {0}")]
    NoResponse(String),
    /// The transport cannot send such a request, so no retry succeeds; see
    /// [`TransportError::unsupported`](crate::transport::TransportError::unsupported).
    #[error("{0}")]
    Unsupported(String),
    /// The response did not come from an eyego-log server. The text includes
    /// the beginning of its body.
    #[error("{0}")]
    UnexpectedResponse(String),
    /// A response ended before it was complete, for example because the server
    /// stopped. What was received until then is not all.
    #[error("the response is incomplete, it ended after {received} bytes: {message}")]
    Incomplete {
        /// The number of bytes that were received.
        received: u64,
        /// Why the response ended.
        message: String,
    },
    /// The client was shut down, or its worker thread failed permanently.
    #[error("the client is shut down")]
    Closed,
    /// The process was forked after the client was built, and this is the child, in
    /// which nothing would send the request.
    #[error("the client was built before a fork; build a new one in the child process")]
    Forked,
    /// The client is disabled, so it has no server to read from.
    #[error(
        "the client is disabled and reads nothing: EYEGO_LOG_URL is not set, or the program \
         disabled the client"
    )]
    Disabled,
}

impl RequestError {
    /// Returns whether the same call may succeed if it is repeated later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            // 501: the server cannot do this at all.
            Self::Status(error) => {
                matches!(error.status, 408 | 425 | 429 | 500 | 502..=599)
            }
            Self::NoResponse(_) | Self::UnexpectedResponse(_) | Self::Incomplete { .. } => true,
            Self::Unsupported(_) | Self::Closed | Self::Forked | Self::Disabled => false,
        }
    }

    /// Returns the server's error response, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<&StatusError> {
        match self {
            Self::Status(error) => Some(error),
            Self::NoResponse(_)
            | Self::Unsupported(_)
            | Self::UnexpectedResponse(_)
            | Self::Incomplete { .. }
            | Self::Closed
            | Self::Forked
            | Self::Disabled => None,
        }
    }
}

/// The reason why an export was not written completely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The server refused the export, or its response is not complete.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The export cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// An error response from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusError {
    /// The HTTP status code. If the client itself rejects a call, this is the status
    /// with which the server would.
    pub status: u16,
    /// The server's message, for people.
    pub message: String,
    /// The errors of individual fields. Empty if no field is invalid.
    pub errors: FieldErrors,
    /// The id under which the server logged the request.
    pub request_id: Option<String>,
    /// How long the server asks to wait before the call is repeated, at most five
    /// minutes.
    pub retry_after: Option<Duration>,
    /// Whether the client rejected the call and sent nothing.
    pub(crate) is_from_client: bool,
}

impl StatusError {
    /// Creates the error of a call that the client itself rejects, as the server
    /// would.
    pub(crate) fn rejected(status: u16, message: String, errors: FieldErrors) -> Self {
        let (request_id, retry_after) = (None, None);
        Self { status, message, errors, request_id, retry_after, is_from_client: true }
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_from_client {
            return write!(f, "the request was not sent, because it is invalid: {}", self.message);
        }
        write!(f, "the server responded with status {}: {}", self.status, self.message)?;
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StatusError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whether_the_client_or_the_server_rejected_the_call() {
        let mut error = StatusError::rejected(400, "no".to_owned(), FieldErrors::new());
        let text = error.to_string();
        assert_eq!(text, "the request was not sent, because it is invalid: no");
        error.is_from_client = false;
        assert_eq!(error.to_string(), "the server responded with status 400: no");
    }
}
