//! What each error of the application and the domain means to a caller.

use eyego_log_core::{FieldErrors, ParseError};

use super::{ApiError, FailureKind};
use crate::application::dead_letters::DeadLetterError;
use crate::application::ingest::IngestError;
use crate::domain::queue::AppendError;
use crate::domain::read::{MAX_EVENT_BYTES, ReadError};
use crate::domain::repository::StoreError;
use crate::domain::tail::TailError;

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        let kind = FailureKind::Refused(error.refusal());
        match error {
            IngestError::Invalid(error) => error.into(),
            IngestError::Unlisted { errors } => {
                Self::new(kind, format!("invalid ({errors} field errors, not listed)"))
            }
            IngestError::TooLarge { bytes, max } => {
                let message = format!("an event may have up to {max} bytes; this one has {bytes}");
                Self::new(kind, message)
            }
            IngestError::NotQueued { id, error } => {
                let internals = Some(error.to_string());
                Self { id, internals, ..Self::new(kind, public_message(&error)) }
            }
        }
    }
}

fn public_message(error: &AppendError) -> &'static str {
    match error {
        AppendError::Full(_) => "the queue is full; retry with the same id",
        AppendError::Lagging(_) => {
            "storing lags more than a second behind the queue; retry with the same id"
        }
        AppendError::OutOfMemory => {
            "the memory for events in flight (EYEGO_MAX_IN_FLIGHT_BYTES) is used up; retry with \
             the same id"
        }
        AppendError::Unavailable(_) => {
            "the queue did not acknowledge the event; retry with the same id"
        }
        AppendError::TooLarge(_) => "the event exceeds the size limit of the queue",
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Syntax(error) => Self::invalid(error.to_string()),
            ParseError::Fields(errors) => errors.into(),
        }
    }
}

impl From<FieldErrors> for ApiError {
    fn from(errors: FieldErrors) -> Self {
        let message = errors.to_string();
        Self { errors, ..Self::invalid(message) }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::store_unavailable(error.to_string()),
            ReadError::TimedOut(limit) => {
                let message = format!(
                    "the query took longer than {} s: narrow the time range with from and to, or \
                     add userId",
                    limit.as_secs()
                );
                Self::new(FailureKind::StoreUnavailable, message)
            }
            ReadError::Overloaded(reason) => {
                let message = format!("too many reads at the same time: {reason}; retry later");
                Self::new(FailureKind::StoreUnavailable, message)
            }
            ReadError::TooLarge => Self::too_large(format!(
                "the event has more than {MAX_EVENT_BYTES} bytes as JSON, the limit of a response: \
                 read it from the store"
            )),
            ReadError::Failed(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<TailError> for ApiError {
    fn from(error: TailError) -> Self {
        match error {
            TailError::InvalidToken => Self::invalid(
                "after or Last-Event-ID must be the id of an event of this tail, unchanged; this \
                 one is not of this store: start again without it",
            ),
            TailError::TokenTooOld => Self::new(
                FailureKind::Gone,
                "after or Last-Event-ID is too old: the store cannot return what followed. List it \
                 with GET /api/v1/logs and from, and start again without the token",
            ),
            TailError::Unsupported(reason) => Self::new(FailureKind::NotSupported, reason),
            TailError::Read(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::store_unavailable(error.to_string())
    }
}

impl From<DeadLetterError> for ApiError {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::NotFound(_) => Self::not_found(error.to_string()),
            DeadLetterError::Truncated { .. } => {
                Self::new(FailureKind::Conflict, error.to_string())
            }
            DeadLetterError::Read(error) => error.into(),
            DeadLetterError::Store(error) => error.into(),
        }
    }
}
