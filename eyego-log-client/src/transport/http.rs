//! The transport that speaks HTTP, by `reqwest`, with TLS that touches nothing
//! outside of it.

use std::path::Path;
use std::time::Duration;

use crate::error::ConfigError;
use crate::transport::{BoxFuture, Method, Request, Response, Transport, TransportError};

/// The largest answer that is read: a page of 1000 large logs.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Connections that are not used are closed before most servers and proxies do
/// it: a request on one that is just being closed would have to be repeated.
const IDLE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct HttpTransport {
    client: reqwest::Client,
}

impl HttpTransport {
    pub(crate) fn new(client: reqwest::Client) -> Self {
        Self { client }
    }

    /// The client that is used when none is handed in.
    pub(crate) fn client(
        needs_tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<reqwest::Client, ConfigError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("eyego-log-client/", env!("CARGO_PKG_VERSION")))
            // A redirected POST becomes a GET: the events would be gone.
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true);
        let builder = tls::configure(builder, needs_tls, ca_file)?;
        builder.build().map_err(|error| ConfigError::new("http_client", error))
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            let mut builder = match request.method {
                Method::Get => self.client.get(&request.url),
                Method::Post => self.client.post(&request.url),
            };
            for (name, value) in request.headers {
                builder = builder.header(name, value);
            }
            if !request.body.is_empty() {
                builder = builder.body(request.body);
            }
            let failed = |error: reqwest::Error| {
                // Without the URL: it says nothing new, and may be long.
                let error = error.without_url();
                TransportError::new(error.to_string()).with_source(error)
            };
            let mut answer = builder.send().await.map_err(failed)?;
            let header = |name| {
                let value = answer.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            let mut response = Response {
                status: answer.status().as_u16(),
                retry_after: header("retry-after"),
                request_id: header("x-request-id"),
                body: Vec::new(),
            };
            while let Some(chunk) = answer.chunk().await.map_err(failed)? {
                if response.body.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(TransportError::new("the answer is too large to be one of ours"));
                }
                response.body.extend_from_slice(&chunk);
            }
            Ok(response)
        })
    }
}

#[cfg(feature = "tls")]
mod tls {
    //! TLS by rustls with a provider of our own. It is never installed for the
    //! process: the program that we are part of may have another.

    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConfig, RootCertStore};
    use rustls_platform_verifier::Verifier;

    use crate::error::ConfigError;

    pub(super) fn configure(
        builder: reqwest::ClientBuilder,
        needs_tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<reqwest::ClientBuilder, ConfigError> {
        let extra = ca_file.map_or_else(|| Ok(Vec::new()), certificates)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new("http_client", error))?;
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
        Ok(builder.tls_backend_preconfigured(config.with_no_client_auth()))
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

    use crate::error::ConfigError;

    pub(super) fn configure(
        builder: reqwest::ClientBuilder,
        needs_tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<reqwest::ClientBuilder, ConfigError> {
        if needs_tls {
            return Err(ConfigError::new("url", "needs the feature tls to begin with https://"));
        }
        match ca_file {
            Some(_) => Err(ConfigError::new("ca_file", "needs the feature tls")),
            None => Ok(builder),
        }
    }
}
