//! The options of the connection to the server: its URL, the API key, headers,
//! TLS and the transport.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::ClientBuilder;
use crate::model::errors::ConfigError;
use crate::transport::Transport;
use crate::transport::api_key::ApiKey;
use crate::transport::describe::without_credentials;
use crate::transport::endpoint::{API_PATH, Endpoint};
use crate::transport::http_client::HttpTransport;
use crate::transport::tls::TlsFiles;

#[derive(Clone, Default)]
pub(super) struct ConnectionOptions {
    pub(super) url: String,
    pub(super) api_key: Option<String>,
    pub(super) api_key_file: Option<PathBuf>,
    headers: Vec<(String, String)>,
    pub(super) tls: TlsFiles,
    transport: Option<Arc<dyn Transport>>,
}

impl ClientBuilder {
    /// Sets the API key, sent as `authorization: Bearer …`. Defaults to none.
    /// The `Debug` output does not show it.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.connection.api_key = Some(key.into());
        self
    }

    /// Sets a file that contains the API key and nothing else. It is read by
    /// [`build`](Self::build), and again before an attempt if it has changed. If
    /// its new content is not valid, or it cannot be read, the previous key is used
    /// and the problem is reported. It must be a regular file of at most 1 MiB.
    /// Defaults to none. Cannot be combined with [`api_key`](Self::api_key).
    ///
    /// With a file, a batch whose key the server refuses is retried until its
    /// delivery timeout, because the key may change.
    pub fn api_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.connection.api_key_file = Some(path.into());
        self
    }

    /// Adds a header to every request, such as one that a gateway requires. May
    /// be called several times. Its value is hidden in `Debug` output. The
    /// headers that describe the body and the connection belong to the client;
    /// `authorization` cannot be combined with [`api_key`](Self::api_key) or
    /// [`api_key_file`](Self::api_key_file).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.connection.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a PEM file with certificate authorities to trust in addition to
    /// those of the system. It is read by [`build`](Self::build), and must be a
    /// regular file of at most 1 MiB. Defaults to none. Cannot be combined with
    /// [`http_client`](Self::http_client) or [`transport`](Self::transport).
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.connection.tls.ca_file = Some(path.into());
        self
    }

    /// Sets a PEM file with the client's own certificate chain and its
    /// unencrypted private key, for servers that require one (mutual TLS). With
    /// the crate feature `native-tls` alone, the key must be in PKCS #8 format.
    /// The file is read by [`build`](Self::build), and must be a regular file of at
    /// most 1 MiB. Defaults to none. Cannot be combined with
    /// [`http_client`](Self::http_client) or [`transport`](Self::transport).
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.connection.tls.identity_file = Some(path.into());
        self
    }

    /// Sends all requests through your own [`reqwest::Client`](crate::reqwest),
    /// with its proxies, TLS settings and headers. Replaces
    /// [`transport`](Self::transport). Defaults to a client that uses the
    /// system's proxies (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), HTTP/2 where
    /// the server offers it with TLS, and follows redirects only if they keep
    /// method and body (307, 308) and stay on the same host.
    ///
    /// The client's thread drives the connections, so they end with
    /// [`shutdown`](crate::Client::shutdown). Configure the `reqwest::Client` not
    /// to follow redirects: it follows some of them with a GET request without
    /// the events, which the client then sends again. Do not set a total timeout
    /// either: it would end exports and tails while they are received. Switch its retries
    /// off (`reqwest::retry::never()`), because the client retries, and set
    /// `http2_keep_alive_interval` and `http2_keep_alive_timeout`, so that a dead HTTP/2
    /// connection is replaced.
    pub fn http_client(self, client: reqwest::Client) -> Self {
        self.transport(HttpTransport::with_client(client))
    }

    /// Sends all requests through `transport` instead of the built-in HTTP
    /// client.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.connection.transport = Some(Arc::new(transport));
        self
    }
}

impl ConnectionOptions {
    pub(super) fn new(url: String) -> Self {
        Self { url, ..Self::default() }
    }

    /// Checks that the transport can use the other options.
    pub(super) fn check_transport(&self) -> Result<(), ConfigError> {
        let files = [("ca_file", &self.tls.ca_file), ("identity_file", &self.tls.identity_file)];
        for (option, file) in files {
            if file.is_some() && self.transport.is_some() {
                let problem = "cannot be combined with http_client or transport";
                return Err(ConfigError::new(option, problem));
            }
        }
        Ok(())
    }

    /// Reads the files and returns what the options describe.
    pub(super) fn open(self) -> Result<(Endpoint, Arc<dyn Transport>), ConfigError> {
        let (base_url, is_https) = base_url(&self.url)?;
        let endpoint = Endpoint::new(base_url, headers(&self)?, api_key(&self)?)
            .map_err(|error| ConfigError::new("url", format!("is not valid: {error}")))?;
        let transport = match self.transport {
            Some(transport) => transport,
            None => Arc::new(HttpTransport::new(is_https, self.tls)?),
        };
        Ok((endpoint, transport))
    }
}

impl fmt::Debug for ConnectionOptions {
    /// Hides the API key, a password in the URL, and the values of headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionOptions")
            .field("url", &without_credentials(&self.url))
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("api_key_file", &self.api_key_file)
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Returns the URL of the API, and whether it needs TLS.
fn base_url(text: &str) -> Result<(String, bool), ConfigError> {
    let shown = without_credentials(text);
    let invalid = |problem: &str| Err(ConfigError::new("url", format!("{problem}: {shown}")));
    let text = text.trim();
    let url: http::Uri = match text.parse() {
        Ok(url) => url,
        Err(error) => {
            return invalid(&format!("must be a URL such as http://localhost:3000 ({error})"));
        }
    };
    let is_https = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return invalid("must begin with http:// or https://"),
    };
    if url.host().is_none_or(str::is_empty) {
        return invalid("must have a host");
    }
    if url.query().is_some() || text.contains('#') {
        return invalid("must not have a query or a fragment");
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return invalid("must not contain a user name or password; use api_key");
    }
    // The HTTP client is stricter, for example with ports.
    match reqwest::Url::parse(text) {
        Ok(url) if url.port() == Some(0) => return invalid("must not have the port 0"),
        Ok(_) => {}
        Err(error) => return invalid(&format!("is not valid ({error})")),
    }
    let server = text.trim_end_matches('/');
    let server = server.strip_suffix(API_PATH).unwrap_or(server).trim_end_matches('/');
    Ok((format!("{server}{API_PATH}"), is_https))
}

fn api_key(options: &ConnectionOptions) -> Result<ApiKey, ConfigError> {
    match (&options.api_key, &options.api_key_file) {
        (None, None) => Ok(ApiKey::None),
        (Some(_), Some(_)) => {
            Err(ConfigError::new("api_key_file", "cannot be combined with api_key"))
        }
        (Some(key), None) => ApiKey::fixed(key),
        (None, Some(path)) => ApiKey::from_file(path.clone()),
    }
}

/// Returns the program's own headers. Errors do not show their values.
fn headers(options: &ConnectionOptions) -> Result<HeaderMap, ConfigError> {
    /// The client sets these itself.
    const RESERVED: [HeaderName; 5] =
        [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING];

    let has_key = options.api_key.is_some() || options.api_key_file.is_some();
    let mut headers = HeaderMap::new();
    for (name, value) in &options.headers {
        let invalid = |problem: &str| ConfigError::new("header", format!("{name:?} {problem}"));
        let name: HeaderName = name.parse().map_err(|_| invalid("is not a valid header name"))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| invalid("has a value that no header can have"))?;
        if RESERVED.contains(&name) {
            return Err(invalid("is set by the client"));
        }
        if name == AUTHORIZATION && has_key {
            return Err(invalid("cannot be combined with api_key or api_key_file"));
        }
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::builder::validate::{Validated, validate};

    fn validate_url(url: &str) -> Result<Validated, ConfigError> {
        validate(ClientBuilder::new(url.to_owned()))
    }

    /// Returns the option that is invalid after `change`.
    fn invalid_option(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> String {
        let builder = change(ClientBuilder::new("http://localhost:3000".to_owned()));
        validate(builder).err().unwrap().option().to_owned()
    }

    #[test]
    fn an_invalid_api_key_is_named_in_the_error() {
        assert_eq!(invalid_option(|b| b.api_key("a b")), "api_key");
        assert_eq!(invalid_option(|b| b.api_key_file("/no/such/file")), "api_key_file");
        assert_eq!(invalid_option(|b| b.api_key("k").api_key_file("f")), "api_key_file");
    }

    #[test]
    fn an_invalid_url_is_shown_without_its_password() {
        for url in [
            "",
            "localhost",
            "ftp://host",
            "http://",
            "http://h?x=1",
            "http://u:secret@h",
            "http://h:99999",
            "http://h:abc",
            "http://h:0",
            "http://u:secret@h:99999",
        ] {
            let error = validate_url(url).err().unwrap();
            assert_eq!(error.option(), "url", "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_api_path_is_appended_to_the_path_of_the_url() {
        let validated = validate_url("http://localhost:3000/behind/a/proxy/").ok().unwrap();
        let expected = "http://localhost:3000/behind/a/proxy/api/v1";
        assert_eq!(validated.endpoint.base_url(), expected);
    }

    #[test]
    fn the_api_path_may_be_part_of_the_url() {
        for (url, expected) in [
            ("http://h:1/api/v1", "http://h:1/api/v1"),
            ("http://h:1/api/v1/", "http://h:1/api/v1"),
            ("http://h:1/proxy/api/v1", "http://h:1/proxy/api/v1"),
            ("http://h:1/api", "http://h:1/api/api/v1"),
        ] {
            assert_eq!(validate_url(url).ok().unwrap().endpoint.base_url(), expected);
        }
    }

    #[test]
    fn a_header_of_the_client_or_an_invalid_one_is_an_error() {
        for (name, value) in [
            ("content-length", "1"),
            ("Content-Type", "text/plain"),
            ("a b", "c"),
            ("x-token", "secret\n"),
        ] {
            let builder = ClientBuilder::new("http://h".to_owned()).header(name, value);
            let error = validate(builder).err().unwrap();
            assert_eq!(error.option(), "header", "{name}");
            assert!(error.to_string().contains(name) && !error.to_string().contains("secret"));
        }
        assert_eq!(invalid_option(|b| b.api_key("k").header("authorization", "x")), "header");
        let builder = ClientBuilder::new("http://h".to_owned()).header("x-token", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
        let endpoint = validate(builder).ok().unwrap().endpoint;
        assert!(!format!("{endpoint:?}").contains("secret"), "{endpoint:?}");
    }

    #[cfg(any(feature = "tls", feature = "native-tls"))]
    #[test]
    fn an_invalid_certificate_file_is_an_error_when_building() {
        assert_eq!(invalid_option(|b| b.identity_file("/no/such/file")), "identity_file");
        assert_eq!(invalid_option(|b| b.identity_file("Cargo.toml")), "identity_file");
        assert_eq!(invalid_option(|b| b.ca_file("/no/such/file")), "ca_file");
        assert_eq!(invalid_option(|b| b.ca_file("Cargo.toml")), "ca_file");
    }
}
