//! How requests reach the server: the [`Transport`] trait and its types.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub(crate) mod describe;
pub(crate) mod endpoint;
pub(crate) mod http;
#[cfg(feature = "reqwest")]
pub(crate) mod reqwest;

/// A boxed future, as [`Transport::send`] returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What [`Transport::send`] resolves to.
pub(crate) type TransportResult = Result<Response, TransportError>;

/// Sends requests to the server.
///
/// By default the client sends them over HTTP/1.1. Pass another implementation
/// to [`ClientBuilder::transport`](crate::ClientBuilder::transport) to sign
/// requests, to send them over another channel, or for tests (the crate feature
/// `test-util` includes one that records).
///
/// The client calls the transport on its own thread, in a current-thread tokio
/// runtime with I/O and time enabled. An implementation needs no timeout, since
/// the client drops the future after the request timeout, and it should not
/// retry, since the client does.
///
/// ```
/// use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
///
/// /// Fails every request.
/// struct Offline;
///
/// impl Transport for Offline {
///     fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
///         let message = format!("{} is unreachable", request.url);
///         Box::pin(async move { Err(TransportError::new(message)) })
///     }
/// }
/// ```
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and reads the whole response.
    ///
    /// # Errors
    /// Returns a [`TransportError`] if no response could be read. The server
    /// may have processed the request nevertheless. The client retries it, and
    /// the events' ids prevent duplicates.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>>;
}

/// The HTTP methods that the client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Used for reads.
    Get,
    /// Used to send events.
    Post,
}

/// A request to the server.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The complete URL.
    pub url: String,
    /// The headers, with names in lower case. They include the API key.
    pub headers: Vec<(&'static str, String)>,
    /// The body, which is empty for a GET request.
    pub body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), body: Vec::new() }
    }

    /// Returns the value of a header. The name is case-insensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

impl fmt::Debug for Request {
    /// Hides the headers, which include the API key, and the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A response from the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// The `retry-after` header.
    pub retry_after: Option<String>,
    /// The `x-request-id` header.
    pub request_id: Option<String>,
}

impl Response {
    /// Creates a response without headers.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }
}

/// The reason why no response could be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// Creates an error with a message for people.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
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
