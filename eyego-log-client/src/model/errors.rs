//! What the calls answer when they cannot do what was asked: one type for each
//! kind of call.

use std::fmt;

use eyego_log_core::{FieldErrors, LogId};

use crate::loss::LossReason;

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It has faults; the same words as the server's. It is not counted: it
    /// never was an event.
    #[error("{0}")]
    Invalid(FieldErrors),
    /// It is larger than an event may be
    /// ([`Builder::max_event_bytes`](crate::Builder::max_event_bytes)). It is
    /// not counted.
    #[error("the event has {bytes} bytes, more than the {max} allowed by max_event_bytes")]
    TooLarge {
        /// Its size as JSON.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The buffer is full. It is counted as lost
    /// ([`LossReason::Overflow`]).
    #[error("the buffer is full; the event is lost and counted")]
    Full,
    /// The client was shut down, or its worker died for good. It is counted as
    /// lost ([`LossReason::Shutdown`], [`LossReason::Worker`]).
    #[error("the client is shut down; the event is lost and counted")]
    Closed,
}

/// Why an event that was waited for is not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It was not taken.
    #[error(transparent)]
    NotTaken(#[from] LogError),
    /// It was taken and then lost, and counted as such.
    #[error("the event {id} is lost ({reason}): {message}")]
    Lost {
        /// Its identity.
        id: LogId,
        /// Why.
        reason: LossReason,
        /// The same for people.
        message: String,
    },
    /// The client was shut down before it was delivered. It is in the spool,
    /// and the next process that names the same directory delivers it.
    #[error("the event {id} is not delivered yet: it stays in the spool")]
    Spooled {
        /// Its identity.
        id: LogId,
    },
}

/// Why a client cannot be built: the option, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {fault}")]
pub struct ConfigError {
    option: &'static str,
    fault: String,
}

impl ConfigError {
    pub(crate) fn new(option: &'static str, fault: impl fmt::Display) -> Self {
        Self { option, fault: fault.to_string() }
    }

    /// The option at fault: the name of the builder's method, or of the
    /// environment variable.
    #[must_use]
    pub fn option(&self) -> &str {
        self.option
    }
}

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The server answered with a failure.
    #[error("{0}")]
    Status(StatusError),
    /// No answer came, in time or at all.
    #[error("no answer from the server: {0}")]
    NoAnswer(String),
    /// An answer came that is none of our server; its first bytes are in the
    /// text.
    #[error("{0}")]
    Nonsense(String),
    /// The client was shut down, or its worker died for good.
    #[error("the client is shut down")]
    Closed,
}

impl ReadError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status(error) => matches!(error.status, 408 | 425 | 429 | 500..=599),
            Self::NoAnswer(_) | Self::Nonsense(_) => true,
            Self::Closed => false,
        }
    }

    /// The failure that the server answered with.
    #[must_use]
    pub fn status(&self) -> Option<&StatusError> {
        match self {
            Self::Status(error) => Some(error),
            Self::NoAnswer(_) | Self::Nonsense(_) | Self::Closed => None,
        }
    }
}

/// A failure that the server answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusError {
    /// The HTTP status.
    pub status: u16,
    /// What the server says, for people.
    pub message: String,
    /// The faults of the fields; empty where none is at fault.
    pub errors: FieldErrors,
    /// What to look for in the server's log.
    pub request_id: Option<String>,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}: {}", self.status, self.message)?;
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}
