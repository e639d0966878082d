//! Sends requests through the transport, with the request timeout.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::compress::Compressor;
use crate::delivery::dispatch::{OutgoingBatch, Ticket};
use crate::delivery::mailbox::{Mailbox, ReadJob};
use crate::transport::endpoint::Endpoint;
use crate::transport::{Method, Request, Transport, TransportError, TransportResult};

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
        let mut request = self.endpoint.request(Method::Post, "/logs/batch");
        request.headers.push(("content-type", "application/x-ndjson".to_owned()));
        let bytes = outgoing.batch.bytes();
        let compressed = outgoing.is_compressed.then(|| compressor.compress(bytes)).flatten();
        match compressed {
            Some(compressed) => {
                request.headers.push(("content-encoding", "zstd".to_owned()));
                request.body = compressed;
            }
            None => request.body = bytes.to_vec(),
        }
        request
    }

    /// Sends a batch and puts the result into the mailbox, even if the
    /// transport panics. Otherwise the batch would stay pending forever.
    pub(crate) async fn post(self, ticket: Ticket, request: Request) {
        struct Guard {
            mailbox: Arc<Mailbox>,
            ticket: Ticket,
            result: Option<TransportResult>,
        }

        impl Drop for Guard {
            fn drop(&mut self) {
                let panicked = || Err(TransportError::new("the transport panicked"));
                let result = self.result.take().unwrap_or_else(panicked);
                self.mailbox.push_response(self.ticket, result);
            }
        }

        let mut guard = Guard { mailbox: Arc::clone(&self.mailbox), ticket, result: None };
        guard.result = Some(self.send(request).await);
    }

    /// Sends a read and passes on its response.
    pub(crate) async fn read(self, job: ReadJob) {
        // The reader may have dropped its future.
        let _ = job.response.send(self.send(job.request).await);
    }

    async fn send(&self, request: Request) -> TransportResult {
        let timeout = self.request_timeout;
        let sent = tokio::time::timeout(timeout, self.transport.send(request)).await;
        sent.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(timeout);
            Err(TransportError::new(format!("no response within {timeout}")))
        })
    }
}
