//! The server's API as a request target: its base URL, the headers of every
//! request, and the API key.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};

use crate::transport::api_key::ApiKey;
use crate::transport::describe::Attempt;
use crate::transport::{Bytes, Request, ResponseLimit, TransportError};

/// The path of the API below the URL of the server.
pub(crate) const API_PATH: &str = "/api/v1";

#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Such as `http://host:3000/api/v1`, without a trailing slash.
    base_url: String,
    batch_uri: Uri,
    headers: HeaderMap,
    api_key: ApiKey,
}

impl Endpoint {
    /// # Errors
    /// Returns the error of the `http` crate if the base URL is not a valid URL.
    pub(crate) fn new(
        base_url: String,
        headers: HeaderMap,
        api_key: ApiKey,
    ) -> Result<Self, http::uri::InvalidUri> {
        let batch_uri = format!("{base_url}/logs/batch").parse()?;
        Ok(Self { base_url, batch_uri, headers, api_key })
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Creates a request that delivers a batch.
    pub(crate) fn batch_request(&self, body: Bytes, limit: ResponseLimit) -> Request {
        self.request(Method::POST, self.batch_uri.clone(), body, limit)
    }

    /// Creates a request for `path`, which is relative to the base URL.
    ///
    /// # Errors
    /// Returns the error of the `http` crate if the path is too long for a URL.
    pub(crate) fn api_request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: ResponseLimit,
    ) -> Result<Request, http::uri::InvalidUri> {
        let uri = format!("{}{path}", self.base_url).parse()?;
        Ok(self.request(method, uri, body, limit))
    }

    /// Creates a request that reads the readiness, which is not part of the
    /// versioned API.
    ///
    /// # Errors
    /// Returns the error of the `http` crate if the URL is not valid.
    pub(crate) fn readiness_request(
        &self,
        limit: ResponseLimit,
    ) -> Result<Request, http::uri::InvalidUri> {
        let root = self.base_url.strip_suffix(API_PATH).unwrap_or(&self.base_url);
        let uri = format!("{root}/health/ready").parse()?;
        Ok(self.request(Method::GET, uri, Bytes::new(), limit))
    }

    fn request(&self, method: Method, uri: Uri, body: Bytes, limit: ResponseLimit) -> Request {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(limit);
        request
    }

    /// Adds the API key that is valid now, and describes the attempt.
    ///
    /// # Errors
    /// Returns a [`TransportError`] if the key cannot be read.
    pub(crate) fn authorize(&self, request: &mut Request) -> Result<Attempt, TransportError> {
        let mut attempt = Attempt::new(request);
        let key = self.api_key.current();
        match (key.header, key.problem) {
            (Some(header), problem) => {
                request.headers_mut().insert(AUTHORIZATION, header);
                attempt.key_problem = problem;
            }
            (None, Some(problem)) => return Err(TransportError::new(problem)),
            (None, None) => {}
        }
        attempt.can_key_change = self.api_key.can_change();
        Ok(attempt)
    }
}
