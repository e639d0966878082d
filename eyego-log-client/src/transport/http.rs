//! The transport that speaks HTTP/1.1, by hyper, with TLS that touches nothing
//! outside of it.
//!
//! It is not built on `reqwest`, for the sake of the programs that the client
//! is part of: TLS with a provider of our own would switch on a feature of
//! `reqwest` for the whole program, and make each `reqwest::Client` panic there
//! that was built without TLS.

use std::path::Path;
use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::ConfigError;
use crate::transport::{BoxFuture, Method, Request, Response, Transport, TransportError};

/// The largest answer that is read: a page of 1000 large logs.
pub(super) const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Connections that are not used are closed before most servers and proxies do
/// it: a request on one that is just being closed would have to be repeated.
const IDLE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct HttpTransport {
    client: Client<tls::Connector, Full<Bytes>>,
}

impl HttpTransport {
    /// # Errors
    /// TLS is needed and there is none, or its certificates cannot be read.
    pub(crate) fn new(needs_tls: bool, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = tls::connector(connector, needs_tls, ca_file)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
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
            let answer = self.client.request(sent).await.map_err(failed)?;
            read(answer).await
        })
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError::new(error.to_string()).with_source(error)
}

async fn read(answer: http::Response<Incoming>) -> Result<Response, TransportError> {
    let (head, mut incoming) = answer.into_parts();
    let mut response = from_head(head.status, &head.headers);
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame.map_err(failed)?.into_data() {
            append(&mut response, &data)?;
        }
    }
    Ok(response)
}

/// An answer so far: without its body.
pub(super) fn from_head(status: http::StatusCode, headers: &HeaderMap) -> Response {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    Response {
        status: status.as_u16(),
        retry_after: headers.get(RETRY_AFTER).and_then(text),
        request_id: headers.get("x-request-id").and_then(text),
        body: Vec::new(),
    }
}

/// Adds a piece of the body.
///
/// # Errors
/// It becomes larger than any answer of ours.
pub(super) fn append(response: &mut Response, data: &[u8]) -> Result<(), TransportError> {
    if response.body.len() + data.len() > MAX_ANSWER_BYTES {
        return Err(TransportError::new("the answer is too large to be one of ours"));
    }
    response.body.extend_from_slice(data);
    Ok(())
}

#[cfg(feature = "tls")]
mod tls {
    //! TLS by rustls with a provider of our own. It is never installed for the
    //! process: the program that we are part of may have another.

    use std::path::Path;
    use std::sync::Arc;

    use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
    use hyper_util::client::legacy::connect::HttpConnector;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};
    use rustls_platform_verifier::Verifier;

    use crate::error::ConfigError;

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
            .map_err(|error| ConfigError::new("url", format!("gets no TLS: {error}")))?;
        let config = if needs_tls {
            let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| {
                let fault = format!(
                    "is needed: the system's certificates cannot be used ({error}); \
                     install ca-certificates or name a file of your own"
                );
                ConfigError::new("ca_file", fault)
            })?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            // Reading the system's bundle takes milliseconds, and there may be none.
            config.with_root_certificates(RootCertStore::empty())
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth());
        Ok(builder.https_or_http().enable_http1().wrap_connector(inner))
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let fault = |error: String| {
            ConfigError::new("ca_file", format!("{} cannot be read: {error}", path.display()))
        };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| fault(error.to_string()))?;
        if certificates.is_empty() {
            return Err(fault("it holds no certificate".to_owned()));
        }
        Ok(certificates)
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    //! No TLS: the feature is off.

    use std::path::Path;

    use hyper_util::client::legacy::connect::HttpConnector;

    use crate::error::ConfigError;

    pub(super) type Connector = HttpConnector;

    pub(super) fn connector(
        inner: HttpConnector,
        needs_tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<Connector, ConfigError> {
        if needs_tls {
            return Err(ConfigError::new("url", "needs the feature tls to begin with https://"));
        }
        match ca_file {
            Some(_) => Err(ConfigError::new("ca_file", "needs the feature tls")),
            None => Ok(inner),
        }
    }
}
