//! Sends read requests through the worker and decodes their responses.

use std::sync::Arc;

use eyego_log_core::FieldErrors;
use eyego_log_core::wire::ErrorResponse;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::delivery::mailbox::{Mailbox, ReadJob};
use crate::model::errors::{ReadError, StatusError};
use crate::transport::describe::{describe, error_chain};
use crate::transport::endpoint::Endpoint;
use crate::transport::{Method, Response};

#[derive(Clone)]
pub(crate) struct Reader {
    mailbox: Arc<Mailbox>,
    endpoint: Arc<Endpoint>,
}

impl Reader {
    pub(crate) fn new(mailbox: Arc<Mailbox>, endpoint: Arc<Endpoint>) -> Self {
        Self { mailbox, endpoint }
    }

    pub(crate) fn base_url(&self) -> &str {
        self.endpoint.base_url()
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Sends a GET request to `path` and decodes the JSON response.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ReadError> {
        let (response, receiver) = oneshot::channel();
        let request = self.endpoint.request(Method::Get, path);
        self.mailbox.push_read(ReadJob { request, response });
        let result = receiver.await.map_err(|_| ReadError::Closed)?;
        let response = result.map_err(|error| ReadError::NoResponse(error_chain(&error)))?;
        if !(200..300).contains(&response.status) {
            return Err(to_error(response));
        }
        serde_json::from_slice(&response.body).map_err(|error| {
            ReadError::UnexpectedResponse(format!("{} ({error})", describe(&response)))
        })
    }
}

fn to_error(response: Response) -> ReadError {
    let (message, errors) = match serde_json::from_slice(&response.body) {
        Ok(ErrorResponse { message, errors, .. }) => (message, errors),
        Err(_) if response.status >= 400 => (describe(&response), FieldErrors::new()),
        Err(_) => return ReadError::UnexpectedResponse(describe(&response)),
    };
    let Response { status, request_id, .. } = response;
    ReadError::Status(StatusError { status, message, errors, request_id })
}
