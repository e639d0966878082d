//! How requests reach the server: the trait, and what travels through it.
//! The one that speaks HTTP is in `http`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub(crate) mod http;
#[cfg(feature = "reqwest")]
pub(crate) mod reqwest;

/// A future in a box, such as [`Transport::send`] answers.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries requests to the server and answers back.
///
/// The client brings one that speaks HTTP; give it another by
/// [`Builder::transport`](crate::Builder::transport) to send through something
/// else, to sign requests, or to test (feature `test-util` has one that
/// records).
///
/// It is driven on the client's own thread, in a current-thread tokio runtime
/// with I/O and time enabled. It need not time out: the client drops the
/// future after its request timeout. It should not retry: the client does.
///
/// ```
/// use eyego_log_client::transport::{BoxFuture, Request, Response, Transport, TransportError};
///
/// /// Sends nothing and says so.
/// struct Offline;
///
/// impl Transport for Offline {
///     fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
///         let message = format!("no way to {}", request.url);
///         Box::pin(async move { Err(TransportError::new(message)) })
///     }
/// }
/// ```
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and reads its whole answer.
    ///
    /// # Errors
    /// No answer came, or none that is HTTP. Whether the server acted on the
    /// request is then unknown; the client asks again, and the events' ids
    /// keep that from storing anything twice.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>>;
}

/// The methods that the client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Reads.
    Get,
    /// Sends events.
    Post,
}

/// One request.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its whole URL.
    pub url: String,
    /// Its headers, names in lower case; the API key is among them.
    pub headers: Vec<(&'static str, String)>,
    /// Its body; empty for a GET.
    pub body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), body: Vec::new() }
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

impl fmt::Debug for Request {
    /// Shows neither the API key nor the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
    /// Its header `retry-after`.
    pub retry_after: Option<String>,
    /// Its header `x-request-id`.
    pub request_id: Option<String>,
}

impl Response {
    /// An answer with this status and body, and no header.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// For this reason, in words.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// With the error that led here.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}
