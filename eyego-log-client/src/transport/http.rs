//! The default transport: HTTP/1.1 with hyper, and TLS with rustls.
//!
//! TLS uses its own crypto provider and never changes the provider of the
//! process. ADR 0018 explains why the transport is not built on `reqwest`.

use std::path::Path;
use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::model::errors::ConfigError;
use crate::transport::{BoxFuture, Method, Request, Response, Transport, TransportError};

/// The largest response body to read, in bytes: a page of 1000 large events.
pub(super) const MAX_RESPONSE_BYTES: usize = 512 << 20;

/// How long an idle connection is kept. This is shorter than the timeout of most
/// servers and proxies, because a request on a connection that is being closed
/// would have to be retried.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct HttpTransport {
    client: Client<tls::Connector, Full<Bytes>>,
}

impl HttpTransport {
    /// # Errors
    /// Returns a [`ConfigError`] if TLS is required but not available, or if the
    /// certificates cannot be read.
    pub(crate) fn new(needs_tls: bool, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = tls::connector(connector, needs_tls, ca_file)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { client })
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            let mut builder = http::Request::builder()
                .method(match request.method {
                    Method::Get => http::Method::GET,
                    Method::Post => http::Method::POST,
                })
                .uri(&request.url)
                .header(USER_AGENT, concat!("eyego-log-client/", env!("CARGO_PKG_VERSION")));
            for (name, value) in &request.headers {
                builder = builder.header(*name, value);
            }
            let sent = builder.body(Full::from(request.body)).map_err(failed)?;
            let response = self.client.request(sent).await.map_err(failed)?;
            read(response).await
        })
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError::new(error.to_string()).with_source(error)
}

async fn read(response: http::Response<Incoming>) -> Result<Response, TransportError> {
    let (head, mut incoming) = response.into_parts();
    let mut response = from_head(head.status, &head.headers);
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame.map_err(failed)?.into_data() {
            append(&mut response, &data)?;
        }
    }
    Ok(response)
}

/// Creates a response without its body.
pub(super) fn from_head(status: http::StatusCode, headers: &HeaderMap) -> Response {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    Response {
        status: status.as_u16(),
        retry_after: headers.get(RETRY_AFTER).and_then(text),
        request_id: headers.get("x-request-id").and_then(text),
        body: Vec::new(),
    }
}

/// Appends a part of the body.
///
/// # Errors
/// Returns a [`TransportError`] if the body exceeds [`MAX_RESPONSE_BYTES`].
pub(super) fn append(response: &mut Response, data: &[u8]) -> Result<(), TransportError> {
    if response.body.len() + data.len() > MAX_RESPONSE_BYTES {
        return Err(TransportError::new(format!(
            "the response exceeds {MAX_RESPONSE_BYTES} bytes"
        )));
    }
    response.body.extend_from_slice(data);
    Ok(())
}

#[cfg(feature = "tls")]
mod tls {
    //! TLS with rustls. The crypto provider is not installed for the process,
    //! because the program may use another one.

    use std::path::Path;
    use std::sync::Arc;

    use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
    use hyper_util::client::legacy::connect::HttpConnector;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};
    use rustls_platform_verifier::Verifier;

    use crate::model::errors::ConfigError;

    pub(super) type Connector = HttpsConnector<HttpConnector>;

    pub(super) fn connector(
        inner: HttpConnector,
        needs_tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<Connector, ConfigError> {
        let extra = ca_file.map_or_else(|| Ok(Vec::new()), certificates)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                ConfigError::new("url", format!("needs TLS, which is not available: {error}"))
            })?;
        let config = if needs_tls {
            let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| {
                let problem = format!(
                    "is required because the system's certificates cannot be used ({error}): \
                     install ca-certificates or set ca_file"
                );
                ConfigError::new("ca_file", problem)
            })?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            // Loading the system's certificates takes milliseconds, and may fail.
            config.with_root_certificates(RootCertStore::empty())
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth());
        Ok(builder.https_or_http().enable_http1().wrap_connector(inner))
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let unusable = |error: String| {
            ConfigError::new("ca_file", format!("{} cannot be read: {error}", path.display()))
        };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| unusable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable("it contains no certificate".to_owned()));
        }
        Ok(certificates)
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    //! The crate feature `tls` is disabled.

    use std::path::Path;

    use hyper_util::client::legacy::connect::HttpConnector;

    use crate::model::errors::ConfigError;

    pub(super) type Connector = HttpConnector;

    pub(super) fn connector(
        inner: HttpConnector,
        needs_tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<Connector, ConfigError> {
        if needs_tls {
            return Err(ConfigError::new(
                "url",
                "begins with https://, which needs the crate feature `tls`",
            ));
        }
        match ca_file {
            Some(_) => Err(ConfigError::new("ca_file", "needs the crate feature `tls`")),
            None => Ok(inner),
        }
    }
}
