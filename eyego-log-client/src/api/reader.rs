//! Sends read requests through the worker and decodes their responses.

use std::sync::Arc;

use eyego_log_core::FieldErrors;
use eyego_log_core::wire::ErrorResponse;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::delivery::mailbox::{Mailbox, ReadJob};
use crate::model::errors::{ReadError, StatusError};
use crate::transport::describe::{describe, error_chain, header, server_message};
use crate::transport::endpoint::Endpoint;
use crate::transport::{Response, ResponseLimit};

/// How much of a response is read, in bytes. The server limits pages to half of
/// this.
const RESPONSE_LIMIT: ResponseLimit = ResponseLimit(32 << 20);

#[derive(Clone)]
pub(crate) struct Reader {
    /// `None` if the client is disabled.
    connection: Option<Connection>,
}

#[derive(Clone)]
struct Connection {
    mailbox: Arc<Mailbox>,
    endpoint: Arc<Endpoint>,
}

impl Reader {
    pub(crate) fn new(mailbox: Arc<Mailbox>, endpoint: Arc<Endpoint>) -> Self {
        Self { connection: Some(Connection { mailbox, endpoint }) }
    }

    /// Creates a reader of a disabled client.
    pub(crate) fn disabled() -> Self {
        Self { connection: None }
    }

    pub(crate) fn base_url(&self) -> Option<&str> {
        self.connection.as_ref().map(|connection| connection.endpoint.base_url())
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.connection.as_ref().map(|connection| &*connection.mailbox)
    }

    /// Sends a GET request to `path` and decodes the JSON response.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ReadError> {
        let Some(Connection { mailbox, endpoint }) = &self.connection else {
            return Err(ReadError::Disabled);
        };
        let request = endpoint.read_request(path, RESPONSE_LIMIT).map_err(|error| {
            let message = format!("the query does not fit into a URL: {error}");
            let errors = FieldErrors::new();
            ReadError::Status(StatusError { status: 414, message, errors, request_id: None })
        })?;
        let (response, receiver) = oneshot::channel();
        mailbox.push_read(ReadJob { request, response });
        let result = receiver.await.map_err(|_| ReadError::Closed)?;
        let response = result.map_err(|error| ReadError::NoResponse(error_chain(&error)))?;
        if !response.status().is_success() {
            return Err(to_error(&response));
        }
        serde_json::from_slice(response.body()).map_err(|error| {
            ReadError::UnexpectedResponse(format!("{} ({error})", describe(&response)))
        })
    }
}

fn to_error(response: &Response) -> ReadError {
    let status = response.status().as_u16();
    let (message, errors) = match serde_json::from_slice(response.body()) {
        Ok(ErrorResponse { message, errors, .. }) if server_message(response).is_some() => {
            (message, errors)
        }
        // A proxy says that the server is overloaded or unavailable.
        _ if matches!(status, 408 | 425 | 429 | 500..=599) => {
            (describe(response), FieldErrors::new())
        }
        _ => return ReadError::UnexpectedResponse(describe(response)),
    };
    let request_id = header(response, "x-request-id").map(str::to_owned);
    ReadError::Status(StatusError { status, message, errors, request_id })
}
