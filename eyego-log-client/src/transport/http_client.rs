//! The default transport: `reqwest` (docs/adr/0018).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::model::errors::ConfigError;
use crate::model::setup_error::SetupError;
use crate::transport::describe::{CutOff, RedirectedTo};
use crate::transport::tls::{self, TlsFiles};
use crate::transport::{
    BoxFuture, Request, Response, ResponseBody, ResponseLimit, StreamingResponse, Transport,
    TransportError,
};

/// How long an idle connection is kept. This is shorter than the timeout of most
/// servers and proxies, because a request on a connection that is being closed
/// would have to be retried.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// While requests are open on an HTTP/2 connection, it is checked after this time without
/// a frame from the server, and closed if the server does not respond in time. Otherwise
/// all requests would share a dead connection for ever. A request over HTTP/1 that times
/// out closes its own connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// The size that the pieces of a body have at least on average, in bytes. A body in
/// smaller ones costs more time than it is worth, and is cut off.
const MIN_PIECE_BYTES: usize = 32;

/// How many redirects of one request are followed.
const MAX_REDIRECTS: usize = 3;

#[derive(Debug)]
pub(crate) struct HttpTransport {
    files: TlsFiles,
    built: Mutex<Option<Built>>,
}

/// A client, and whether it can connect with TLS.
#[derive(Debug)]
struct Built {
    client: Client,
    has_tls: bool,
}

impl HttpTransport {
    /// Builds the HTTP client. If the process has no free file descriptor, that
    /// is repeated before each request until it succeeds.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if TLS is required but not available, or if a
    /// certificate or key cannot be used.
    pub(crate) fn new(needs_tls: bool, files: TlsFiles) -> Result<Self, ConfigError> {
        let built = match Built::new(&files, needs_tls) {
            Ok(built) => Some(built),
            Err(SetupError::NoDescriptor(_)) => None,
            Err(SetupError::Config(error)) => return Err(error),
        };
        Ok(Self { files, built: Mutex::new(built) })
    }

    /// Sends all requests through the program's own client.
    pub(crate) fn with_client(client: Client) -> Self {
        let built = Built { client, has_tls: true };
        Self { files: TlsFiles::default(), built: Mutex::new(Some(built)) }
    }

    fn client(&self, needs_tls: bool) -> Result<Client, TransportError> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = built.as_ref().filter(|built| built.has_tls || !needs_tls) {
            return Ok(built.client.clone());
        }
        let new = Built::new(&self.files, needs_tls).map_err(|error| {
            TransportError::new(format!("the HTTP client cannot be created: {error}"))
        })?;
        Ok(built.insert(new).client.clone())
    }

    /// Sends a request, follows redirects to the same host that keep the method and
    /// the body, and returns the response when its head has arrived.
    async fn open(&self, request: Request) -> Result<Opened, TransportError> {
        let (head, body) = request.into_parts();
        let mut url = Url::parse(&head.uri.to_string()).map_err(failed)?;
        let mut redirected = None;
        let mut visited = Vec::new();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client(url.scheme() == "https")?;
            let request = client.request(head.method.clone(), url.clone());
            let request = request.headers(head.headers.clone()).body(body.clone());
            let response = request.send().await.map_err(without_url)?;
            let target = redirect_target(&url, response.status(), response.headers());
            let Some(target) = target else {
                return Ok(Opened { response, redirected: redirected.map(RedirectedTo) });
            };
            redirected = Some(target.to_string());
            visited.push(std::mem::replace(&mut url, target));
            if visited.contains(&url) {
                return Err(TransportError::new(format!("a circle of redirects, back to {url}")));
            }
        }
        Err(TransportError::new(format!("more than {MAX_REDIRECTS} redirects, the last to {url}")))
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let limit = request.extensions().get().map_or(usize::MAX, |ResponseLimit(limit)| *limit);
        let Opened { response, redirected } = self.open(request).await?;
        let mut response = receive(response, limit).await?;
        if let Some(redirected) = redirected {
            response.extensions_mut().insert(redirected);
        }
        Ok(response)
    }

    async fn exchange_streaming(
        &self,
        request: Request,
    ) -> Result<StreamingResponse, TransportError> {
        let Opened { mut response, redirected } = self.open(request).await?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body: Box<dyn ResponseBody> = Box::new(Body(response));
        let mut response = StreamingResponse::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if let Some(redirected) = redirected {
            response.extensions_mut().insert(redirected);
        }
        Ok(response)
    }
}

/// A response whose body has not been read.
struct Opened {
    response: reqwest::Response,
    redirected: Option<RedirectedTo>,
}

struct Body(reqwest::Response);

impl ResponseBody for Body {
    fn next_piece(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransportError>> {
        Box::pin(async { self.0.chunk().await.map_err(without_url) })
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(self.exchange(request))
    }

    fn send_streaming(
        &self,
        request: Request,
    ) -> BoxFuture<'_, Result<StreamingResponse, TransportError>> {
        Box::pin(self.exchange_streaming(request))
    }
}

impl Built {
    fn new(files: &TlsFiles, needs_tls: bool) -> Result<Self, SetupError> {
        let build = |files: &TlsFiles| {
            Ok::<_, SetupError>(tls::configure(Self::builder(), files, needs_tls)?.build())
        };
        let client = build(files)?.map_err(|error| {
            let can_build = |files: &TlsFiles| matches!(build(files), Ok(Ok(_)));
            tls::setup_error(&error, files, needs_tls, can_build)
        })?;
        Ok(Self { client, has_tls: needs_tls })
    }

    fn builder() -> reqwest::ClientBuilder {
        Client::builder()
            .user_agent(concat!("eyego-log-client/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            // The dispatcher retries, with pauses. The library would send a request that
            // an HTTP/2 server refuses twice more at once.
            .retry(reqwest::retry::never())
            .referer(false)
            // `exchange` follows redirects itself: it keeps the API key when the
            // same host redirects to TLS, and messages can name the target.
            .redirect(Policy::none())
    }
}

/// Returns where to send the request again, or `None` if the response is final.
/// The same request is only sent to the same host, and never from TLS to plain
/// text.
fn redirect_target(url: &Url, status: StatusCode, headers: &HeaderMap) -> Option<Url> {
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let target = url.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    let is_same_host = target.host() == url.host() && target.username().is_empty();
    let (from, to) = (url.scheme(), target.scheme());
    let keeps_secrecy = from == to || (from, to) == ("http", "https");
    (is_same_host && keeps_secrecy && target.password().is_none()).then_some(target)
}

/// Reads the body, up to `limit` bytes of it.
async fn receive(
    mut received: reqwest::Response,
    limit: usize,
) -> Result<Response, TransportError> {
    let mut body = BytesMut::new();
    let mut is_cut_off = false;
    let mut pieces = 0_usize;
    while let Some(chunk) = received.chunk().await.map_err(without_url)? {
        pieces += 1;
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room || pieces > limit / MIN_PIECE_BYTES {
            // Dropping the response closes its connection or stream.
            is_cut_off = true;
            break;
        }
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = received.status();
    *response.headers_mut() = std::mem::take(received.headers_mut());
    if is_cut_off {
        let read = response.body().len();
        response.extensions_mut().insert(CutOff(read));
    }
    Ok(response)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError::new(error.to_string()).with_source(error)
}

/// The sender adds the URL to the message.
fn without_url(error: reqwest::Error) -> TransportError {
    failed(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_redirected_only_to_the_same_host_with_its_method() {
        let target = |status, from: &str, location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            redirect_target(&from.parse().unwrap(), status, &headers).map(String::from)
        };
        let followed = |status, from, location| target(status, from, location).is_some();
        assert_eq!(target(308, "http://h/a", "/b").unwrap(), "http://h/b");
        assert_eq!(target(307, "http://h/a", "https://h/a").unwrap(), "https://h/a");
        assert!(!followed(301, "http://h/a", "/b"), "a POST would become a GET");
        assert!(!followed(307, "http://h/a", "http://other/a"));
        assert!(!followed(307, "https://h/a", "http://h/a"), "the key would be sent in plain text");
        assert!(!followed(307, "http://h/a", "http://u:p@h/a"));
    }
}
