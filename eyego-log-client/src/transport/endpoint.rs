//! The server's API as a request target: its base URL and the API key.

use crate::transport::{Method, Request};

#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Such as `http://host:3000/api/v1`, without a trailing slash.
    base_url: String,
    authorization: Option<Authorization>,
}

/// The value of the `authorization` header.
struct Authorization(String);

impl std::fmt::Debug for Authorization {
    /// Hides the API key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Endpoint {
    pub(crate) fn new(base_url: String, api_key: Option<&str>) -> Self {
        let authorization = api_key.map(|key| Authorization(format!("Bearer {key}")));
        Self { base_url, authorization }
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Creates a request to `path`, with the API key if there is one.
    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        let mut request = Request::new(method, format!("{}{path}", self.base_url));
        if let Some(Authorization(value)) = &self.authorization {
            request.headers.push(("authorization", value.clone()));
        }
        request
    }
}
