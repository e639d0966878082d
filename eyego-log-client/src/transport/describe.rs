//! Describes responses and errors in messages for people.

use serde::Deserialize;

use crate::transport::Response;

/// How much of an unexpected body a message shows, in bytes.
const SHOWN_BYTES: usize = 200;

/// Describes a response by its status and the server's message.
pub(crate) fn describe(response: &Response) -> String {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }

    let status = response.status;
    let id = response.request_id.as_deref().map(|id| format!(" (request {id})"));
    let id = id.unwrap_or_default();
    match serde_json::from_slice(&response.body) {
        Ok(Failure { message }) => {
            format!("the server responded with status {status}{id}: {message}")
        }
        Err(_) if response.body.is_empty() => {
            format!("the server responded with status {status}{id} and no body")
        }
        Err(_) => {
            let shown = &response.body[..response.body.len().min(SHOWN_BYTES)];
            let shown = String::from_utf8_lossy(shown);
            format!("unexpected response with status {status}{id} and body {shown:?}")
        }
    }
}

/// Formats an error and all of its sources.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Many errors repeat the message of their source.
        if !chain.contains(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
        }
        source = error.source();
    }
    chain
}
