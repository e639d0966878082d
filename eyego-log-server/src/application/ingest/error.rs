//! The reasons an event is not queued, and how they are classified.

use eyego_log_core::wire::RejectionCode;
use eyego_log_core::{LogId, ParseError};

use crate::application::metrics::Refusal;
use crate::domain::queue::AppendError;

/// The reason an event was not queued.
#[derive(Debug)]
pub enum IngestError {
    /// The event is not JSON or has invalid fields.
    Invalid(ParseError),
    /// The event has invalid fields, which are not listed because enough errors of
    /// its batch are.
    Unlisted {
        /// Number of invalid fields.
        errors: usize,
    },
    /// The event exceeds the limit for one event.
    TooLarge {
        /// Size of the event.
        bytes: usize,
        /// Maximum size of an event.
        max: usize,
    },
    /// The queue, or the budget in front of it, did not accept the event.
    NotQueued {
        /// Id of the event, under which it may still appear, once. `None` if there
        /// was no memory to read its body.
        id: Option<LogId>,
        /// The reason.
        error: AppendError,
    },
}

impl IngestError {
    /// Returns the reason under which the event is counted.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        self.classify().0
    }

    /// Returns the machine-readable reason that the API reports.
    #[must_use]
    pub fn code(&self) -> RejectionCode {
        self.classify().1
    }

    fn classify(&self) -> (Refusal, RejectionCode) {
        match self {
            Self::Invalid(_) | Self::Unlisted { .. } => (Refusal::Invalid, RejectionCode::Invalid),
            Self::TooLarge { .. } => (Refusal::TooLarge, RejectionCode::TooLarge),
            Self::NotQueued { error, .. } => match error {
                AppendError::Full(_) | AppendError::Lagging(_) | AppendError::OutOfMemory => {
                    (Refusal::QueueFull, RejectionCode::QueueFull)
                }
                AppendError::Unavailable(_) => {
                    (Refusal::Unavailable, RejectionCode::QueueUnavailable)
                }
                AppendError::TooLarge(_) => (Refusal::TooLarge, RejectionCode::TooLarge),
            },
        }
    }
}
