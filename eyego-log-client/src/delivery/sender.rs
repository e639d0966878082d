//! Sends requests through the transport, with the request timeout.

mod stream;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::delivery::compress::Compressor;
use crate::delivery::dispatch::{OutgoingBatch, Ticket};
use crate::delivery::mailbox::{Call, Completion, Mailbox};
use crate::sync::panic_message;
use crate::transport::describe::{Attempt, rounded};
use crate::transport::endpoint::Endpoint;
use crate::transport::{Bytes, Request, ResponseLimit, Transport, TransportError, TransportResult};

/// How much of the response to a batch is read: a fixed part, and room for the
/// rejection of each event.
const RESPONSE_BYTES: usize = 64 << 10;
const RESPONSE_BYTES_PER_EVENT: usize = 1 << 10;

/// Cheap to clone: each request runs in a task with its own clone.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) request_timeout: Duration,
}

impl Sender {
    /// Creates the request that delivers a batch.
    pub(crate) fn batch_request(
        &self,
        outgoing: &OutgoingBatch<'_>,
        compressor: &mut Compressor,
    ) -> Request {
        let bytes = outgoing.batch.bytes();
        let compressed = outgoing.is_compressed.then(|| compressor.compress(bytes)).flatten();
        let is_compressed = compressed.is_some();
        let body = compressed.map_or_else(|| Bytes::copy_from_slice(bytes), Bytes::from);
        let limit = RESPONSE_BYTES + outgoing.batch.len() * RESPONSE_BYTES_PER_EVENT;
        let mut request = self.endpoint.batch_request(body, ResponseLimit(limit));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if is_compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        }
        request
    }

    /// Sends a batch and puts the result into the mailbox.
    pub(crate) async fn post(self, ticket: Ticket, request: Request) {
        let began_at = Instant::now();
        let result = catch_panic(self.send(request, self.request_timeout)).await;
        let duration = began_at.elapsed();
        self.mailbox.push_response(Completion { ticket, result, duration });
    }

    /// Makes a call and passes on its response.
    pub(crate) async fn call(self, call: Call) {
        let Call { request, extra_time, response, stream } = call;
        // The caller has given up, and must not be surprised by a late effect.
        if response.is_closed() {
            return;
        }
        match stream {
            Some(target) => self.stream(request, response, target).await,
            None => {
                let timeout = self.request_timeout + extra_time;
                let result = catch_panic(self.send(request, timeout)).await;
                // The caller may have dropped its future.
                let _ = response.send(result);
            }
        }
    }

    /// Sends one attempt. A failure names its URL.
    async fn send(&self, mut request: Request, timeout: Duration) -> TransportResult {
        let attempt = self.endpoint.authorize(&mut request)?;
        let sent = self.transport.send(request);
        match tokio::time::timeout(timeout, sent).await {
            Ok(Ok(mut response)) => {
                response.extensions_mut().insert(attempt);
                Ok(response)
            }
            Ok(Err(error)) => Err(at(&attempt, error)),
            Err(_) => {
                let message = format!("no response within {}", rounded(timeout));
                Err(at(&attempt, TransportError::new(message)))
            }
        }
    }
}

/// Runs the program's transport. A panic in it becomes an error, so that there always is
/// a result.
async fn catch_panic<T>(
    call: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let mut call = pin!(call);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            let message = format!("the transport panicked: {}", panic_message(&*panic));
            Poll::Ready(Err(TransportError::new(message)))
        })
    })
    .await
}

/// Adds the URL of the attempt to the message of an error.
fn at(attempt: &Attempt, error: TransportError) -> TransportError {
    error.map_message(|message| format!("{attempt}: {message}"))
}
