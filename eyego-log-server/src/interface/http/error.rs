//! Every failure of the API and its status: the one table.

use axum::Json;
use axum::response::{IntoResponse, Response};
use eyego_log_core::wire::{ErrorResponse, IngestResponse, Status};
use eyego_log_core::{FieldError, FieldErrors, LogId, ParseError};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use crate::application::dead_letters::ReplayError;
use crate::application::ingest::{IngestError, public_message, refusal_of};
use crate::application::metrics::Refusal;
use crate::domain::queue::AppendError;
use crate::domain::repository::ReadError;

/// Seconds after which a caller should try again: long enough for a queue to
/// drain a little, short enough for a person.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The request makes no sense; the faults of its fields, if it has fields.
    Invalid(String, FieldErrors),
    /// There is no such thing.
    NotFound(String),
    /// There is, but not by this method.
    MethodNotAllowed,
    /// The caller takes too long.
    TooSlow(String),
    /// The body, or the event in it, is too large.
    TooLarge(String),
    /// A media type or an encoding that is not read here.
    Unsupported(String),
    /// The queue did not take the log of this id.
    NotQueued(Option<LogId>, AppendError),
    /// What is there does not allow it.
    Conflict(String),
    /// The store does not answer.
    NotReadable(String),
    /// Our fault; the text is for the log.
    Internal(String),
}

/// What a failure says to us and not to the caller; goes into the log.
#[derive(Debug, Clone)]
pub(super) struct Internals(pub(super) String);

impl ApiError {
    pub(crate) fn field(error: FieldError) -> Self {
        Self::Invalid(error.message.clone(), error.into())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(..) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) | Self::NotQueued(_, AppendError::TooLarge(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotQueued(_, AppendError::Full(_) | AppendError::Unavailable(_))
            | Self::NotReadable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Why the body that it answers was refused, for the counters.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Invalid(..) | Self::NotFound(_) | Self::MethodNotAllowed | Self::Conflict(_) => {
                Refusal::Invalid
            }
            Self::TooSlow(_) => Refusal::TooSlow,
            Self::TooLarge(_) => Refusal::TooLarge,
            Self::Unsupported(_) => Refusal::Unsupported,
            Self::NotQueued(_, error) => refusal_of(error),
            Self::NotReadable(_) | Self::Internal(_) => Refusal::Internal,
        }
    }

    fn internals(&self) -> Option<String> {
        match self {
            Self::NotQueued(_, error) => Some(error.to_string()),
            Self::NotReadable(text) | Self::Internal(text) => Some(text.clone()),
            Self::Invalid(..)
            | Self::NotFound(_)
            | Self::MethodNotAllowed
            | Self::TooSlow(_)
            | Self::TooLarge(_)
            | Self::Conflict(_)
            | Self::Unsupported(_) => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.status();
        let status = if code.is_server_error() { Status::Error } else { Status::Fail };
        let internals = self.internals();
        let plain = |message: String| {
            Json(ErrorResponse { status, message, errors: FieldErrors::new() }).into_response()
        };
        let mut response = match self {
            Self::Invalid(message, errors) => {
                Json(ErrorResponse { status, message, errors }).into_response()
            }
            Self::NotQueued(Some(id), error) => {
                let message = public_message(&error).to_owned();
                Json(IngestResponse { status, message, id }).into_response()
            }
            Self::NotQueued(None, error) => plain(public_message(&error).to_owned()),
            Self::NotFound(message)
            | Self::TooSlow(message)
            | Self::TooLarge(message)
            | Self::Conflict(message)
            | Self::Unsupported(message) => plain(message),
            Self::MethodNotAllowed => {
                plain("this path does not know that method; see the Allow header".to_owned())
            }
            Self::NotReadable(_) => plain("the store does not answer; try again".to_owned()),
            Self::Internal(_) => {
                plain("something broke here; the request id leads to it in our log".to_owned())
            }
        };
        *response.status_mut() = code;
        if code == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(internals) = internals {
            response.extensions_mut().insert(Internals(internals));
        }
        response
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        let message = error.to_string();
        match error {
            ParseError::Syntax(_) => Self::Invalid(message, FieldErrors::new()),
            ParseError::Fields(errors) => Self::Invalid(message, errors),
        }
    }
}

impl From<FieldErrors> for ApiError {
    fn from(errors: FieldErrors) -> Self {
        Self::Invalid(errors.to_string(), errors)
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Invalid(error) => error.into(),
            IngestError::TooLarge(message) => Self::TooLarge(message),
            IngestError::NotQueued(id, error) => Self::NotQueued(Some(id), error),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::NotReadable(error.to_string()),
            ReadError::Failed(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NotFound(_) => Self::NotFound(error.to_string()),
            ReplayError::Cut { .. } => Self::Conflict(error.to_string()),
            ReplayError::Read(error) => error.into(),
            ReplayError::Store(error) => Self::NotReadable(error.to_string()),
        }
    }
}
