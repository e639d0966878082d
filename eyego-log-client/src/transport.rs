//! How requests reach the server: the [`Transport`] trait and its types.
//!
//! `http_client` implements the trait with `reqwest`. `endpoint` creates the
//! requests, with the headers and the API key of the builder, and `describe`
//! turns responses into messages.

use std::future::Future;
use std::pin::Pin;

pub(crate) mod api_key;
pub(crate) mod describe;
pub(crate) mod endpoint;
pub(crate) mod http_client;
pub(crate) mod tls;

pub use bytes::Bytes;
pub use http;

/// A request to the server: method, complete URL, headers and body.
pub type Request = http::Request<Bytes>;

/// A response from the server: status, headers and the whole body.
pub type Response = http::Response<Bytes>;

/// A response whose body arrives piece by piece.
pub type StreamingResponse = http::Response<Box<dyn ResponseBody>>;

/// A boxed future, as [`Transport::send`] returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What [`Transport::send`] resolves to.
pub(crate) type TransportResult = Result<Response, TransportError>;

/// Sends requests to the server.
///
/// By default the client uses `reqwest`. Pass another implementation to
/// [`ClientBuilder::transport`](crate::ClientBuilder::transport) to sign
/// requests, to send them over another channel, or for tests (the crate feature
/// `test-util` includes one that records).
///
/// The client calls the transport on its own thread, in a current-thread tokio
/// runtime with I/O and time enabled. An implementation needs no timeout, since
/// the client drops the future after the request timeout, and it should not
/// retry, since the client does.
///
/// A batch of events is a `POST` to `/api/v1/logs/batch`, with one event as JSON per line,
/// each with a line break at its end, and compressed if
/// [`compression`](crate::ClientBuilder::compression) is enabled and the body has more
/// than 1 KiB. It is delivered if the response has the status 202 and a body such as
/// `{"accepted":3,"rejected":[]}`. A response that no eyego-log server sends is a failed
/// attempt, and the batch is sent again.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use eyego_log_client::transport::http::StatusCode;
/// use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
/// use eyego_log_client::{Client, Event};
///
/// /// Accepts and counts all events.
/// #[derive(Clone, Default)]
/// struct Counting(Arc<AtomicUsize>);
///
/// impl Transport for Counting {
///     fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
///         let count = request.body().iter().filter(|byte| **byte == b'\n').count();
///         self.0.fetch_add(count, Ordering::Relaxed);
///         let body = format!(r#"{{"accepted":{count},"rejected":[]}}"#);
///         let mut response = Response::new(body.into());
///         *response.status_mut() = StatusCode::ACCEPTED;
///         Box::pin(async move { Ok(response) })
///     }
/// }
///
/// # futures_executor::block_on(async {
/// let counting = Counting::default();
/// let builder = Client::builder("http://test").transport(counting.clone());
/// let client = builder.compression(false).build()?;
/// client.log(Event::new("user-123", "LOGIN"))?;
/// assert!(client.shutdown().await.all_delivered());
/// assert_eq!(counting.0.load(Ordering::Relaxed), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and reads the response.
    ///
    /// # Errors
    /// Returns a [`TransportError`] if no response could be read. The server
    /// may have processed the request nevertheless. The client retries it, and
    /// the events' ids prevent duplicates.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>>;

    /// Sends one request and returns as soon as the head of the response has
    /// arrived. Exports and tails need this method. The default implementation
    /// returns an [unsupported](TransportError::unsupported) error, so a transport that
    /// only delivers events does not need it.
    ///
    /// The client drops the body to cancel the request.
    ///
    /// # Errors
    /// Returns a [`TransportError`] if there is no response.
    fn send_streaming(
        &self,
        request: Request,
    ) -> BoxFuture<'_, Result<StreamingResponse, TransportError>> {
        drop(request);
        let message = "the transport does not implement `send_streaming`, which exports and tails \
                       need";
        Box::pin(std::future::ready(Err(TransportError::unsupported(message))))
    }
}

/// The body of a [`StreamingResponse`].
pub trait ResponseBody: Send {
    /// Returns the next piece, or `None` at the end of a complete body.
    ///
    /// # Errors
    /// Returns a [`TransportError`] if the body cannot be read to its end.
    fn next_piece(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransportError>>;
}

impl std::fmt::Debug for dyn ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponseBody")
    }
}

/// The number of bytes after which the rest of a response's body is of no
/// interest. Every request has it in its extensions.
///
/// A transport should stop reading there and return what it has read. The
/// client ignores whatever lies beyond.
///
/// ```
/// # use eyego_log_client::transport::{Request, ResponseLimit};
/// fn limit_of(request: &Request) -> usize {
///     request.extensions().get::<ResponseLimit>().map_or(usize::MAX, |limit| limit.0)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseLimit(pub usize);

/// The reason why no response could be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    message: String,
    is_unsupported: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// Creates an error with a message for people.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_unsupported: false, source: None }
    }

    /// Creates an error of a transport that cannot send such requests at all. It ends
    /// a [`Tail`](crate::Tail), and is
    /// [`RequestError::Unsupported`](crate::RequestError::Unsupported) for other calls
    /// that read. A batch of events is sent again like after any other error.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { is_unsupported: true, ..Self::new(message) }
    }

    pub(crate) fn is_unsupported(&self) -> bool {
        self.is_unsupported
    }

    /// Replaces the message, to which the sources belong then.
    pub(crate) fn map_message(self, change: impl FnOnce(&str) -> String) -> Self {
        let message = change(&describe::error_chain(&self));
        Self { message, is_unsupported: self.is_unsupported, source: None }
    }

    /// Sets the underlying error.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Creates a response for tests.
#[cfg(test)]
pub(crate) fn response(status: u16, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    if let Ok(status) = http::StatusCode::from_u16(status) {
        *response.status_mut() = status;
    }
    response
}
