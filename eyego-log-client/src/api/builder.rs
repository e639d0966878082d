//! The options of a client. `env` reads them from environment variables, and
//! `validate` checks them.

mod env;
mod parse;
#[cfg(feature = "spool")]
mod spool;
pub(in crate::api) mod validate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::FieldErrors;
use serde::Serialize;

use crate::model::delivered::Delivered;
use crate::model::draft::DraftEvent;
use crate::model::loss::Loss;
use crate::pipeline::context::Context;
use crate::pipeline::event_queue::Overflow;
use crate::pipeline::filter::BeforeSend;
use crate::pipeline::reporter::Hooks;
#[cfg(feature = "spool")]
use crate::spool::SpoolSync;
use crate::transport::Transport;
use crate::transport::describe::without_credentials;
use crate::transport::http_client::HttpTransport;
use crate::transport::tls::TlsFiles;

/// Sets the options of a [`Client`](crate::Client) and builds it.
///
/// ```
/// use std::time::Duration;
/// use eyego_log_client::{Client, Overflow};
///
/// let client = Client::builder("http://localhost:3000")
///     .linger(Duration::from_millis(200))
///     .max_buffer_bytes(8 << 20)
///     .overflow(Overflow::DropOldest)
///     .on_loss(|loss| eprintln!("{} events lost: {}", loss.count(), loss.message))
///     .build()?;
/// # Ok::<(), eyego_log_client::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    url: String,
    is_disabled: bool,
    api_key: Option<String>,
    api_key_file: Option<PathBuf>,
    headers: Vec<(String, String)>,
    tls: TlsFiles,
    max_batch_events: usize,
    max_batch_bytes: usize,
    linger: Duration,
    max_event_bytes: usize,
    max_buffer_bytes: usize,
    overflow: Overflow,
    max_in_flight: usize,
    request_timeout: Duration,
    retry_base: Duration,
    retry_max: Duration,
    delivery_timeout: Duration,
    shutdown_timeout: Duration,
    compression: bool,
    #[cfg(feature = "spool")]
    spool_dir: Option<PathBuf>,
    #[cfg(feature = "spool")]
    spool_max_bytes: u64,
    #[cfg(feature = "spool")]
    spool_max_age: Option<Duration>,
    #[cfg(feature = "spool")]
    spool_sync: SpoolSync,
    transport: Option<Arc<dyn Transport>>,
    hooks: Hooks,
    sample_rate: f64,
    before_send: Option<BeforeSend>,
    common_metadata: Result<Context, FieldErrors>,
}

impl ClientBuilder {
    pub(in crate::api) fn new(url: String) -> Self {
        Self {
            url,
            is_disabled: false,
            api_key: None,
            api_key_file: None,
            headers: Vec::new(),
            tls: TlsFiles::default(),
            max_batch_events: 500,
            max_batch_bytes: 512 << 10,
            linger: Duration::from_secs(1),
            max_event_bytes: 64 << 10,
            max_buffer_bytes: 32 << 20,
            overflow: Overflow::DropNewest,
            max_in_flight: 4,
            request_timeout: Duration::from_secs(15),
            retry_base: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            shutdown_timeout: Duration::from_secs(5),
            compression: cfg!(feature = "zstd"),
            #[cfg(feature = "spool")]
            spool_dir: None,
            #[cfg(feature = "spool")]
            spool_max_bytes: 1 << 30,
            #[cfg(feature = "spool")]
            spool_max_age: None,
            #[cfg(feature = "spool")]
            spool_sync: SpoolSync::default(),
            transport: None,
            hooks: Hooks::default(),
            sample_rate: 1.0,
            before_send: None,
            common_metadata: Ok(Context::default()),
        }
    }

    /// Sets whether the client is disabled: it validates events, discards them and
    /// counts them; see [`Client::disabled`](crate::Client::disabled). The URL, the
    /// files and the functions that other options name are not used then. Defaults
    /// to false.
    pub fn disabled(mut self, disabled: bool) -> Self {
        self.is_disabled = disabled;
        self
    }

    /// Sets the API key, sent as `authorization: Bearer …`. Defaults to none.
    /// The `Debug` output does not show it.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Sets a file that contains the API key and nothing else. It is read by
    /// [`build`](Self::build), and again before an attempt if it has changed. If
    /// its new content is not valid, the previous key is used. Defaults to none.
    /// Cannot be combined with [`api_key`](Self::api_key).
    ///
    /// With a file, a batch whose key the server refuses is retried until its
    /// delivery timeout, because the key may change.
    pub fn api_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.api_key_file = Some(path.into());
        self
    }

    /// Adds a header to every request, such as one that a gateway requires. May
    /// be called several times. Its value is hidden in `Debug` output. The
    /// headers that describe the body and the connection belong to the client;
    /// `authorization` cannot be combined with [`api_key`](Self::api_key) or
    /// [`api_key_file`](Self::api_key_file).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a PEM file with certificate authorities to trust in addition to
    /// those of the system. It is read by [`build`](Self::build). Defaults to
    /// none. Cannot be combined with [`http_client`](Self::http_client) or
    /// [`transport`](Self::transport).
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// Sets a PEM file with the client's own certificate chain and its
    /// unencrypted private key, for servers that require one (mutual TLS). With
    /// the crate feature `native-tls` alone, the key must be in PKCS #8 format.
    /// The file is read by [`build`](Self::build). Defaults to none. Cannot be
    /// combined with [`http_client`](Self::http_client) or
    /// [`transport`](Self::transport).
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.identity_file = Some(path.into());
        self
    }

    /// Sets the maximum number of events in a request. Defaults to 500; from 1
    /// to 10,000.
    pub fn max_batch_events(mut self, events: usize) -> Self {
        self.max_batch_events = events;
        self
    }

    /// Sets the maximum size of a request body in bytes, before compression.
    /// Defaults to 512 KiB; from [`max_event_bytes`](Self::max_event_bytes) to
    /// 16 MiB.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// Sets how long an event waits for others to share its request. Defaults
    /// to 1 s; from 0 to 60 s. [`send`](crate::Client::send) and
    /// [`flush`](crate::Client::flush) do not wait.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets the maximum size of an event as JSON, in bytes. Defaults to 64 KiB;
    /// from 256 bytes to 16 MiB. The server has its own limit, 256 KiB by
    /// default.
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Sets the maximum memory of all pending events in bytes: those that are
    /// buffered, in flight or awaiting a retry. Defaults to 32 MiB; at least
    /// four times [`max_batch_bytes`](Self::max_batch_bytes).
    pub fn max_buffer_bytes(mut self, bytes: usize) -> Self {
        self.max_buffer_bytes = bytes;
        self
    }

    /// Sets what happens to an event when the buffer is full. Defaults to
    /// [`Overflow::DropNewest`]. [`Overflow::Block`] can block for up to 1 h.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the maximum number of concurrent requests that deliver events.
    /// Defaults to 4; from 1 to 64. With 1, the events of a thread stay in order
    /// unless a request is retried.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Sets how long one request may take, from connecting to the end of the
    /// response. Defaults to 15 s; from 1 ms to 10 min.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets the pauses between attempts. Each is a random duration up to a
    /// limit, which is `base` after the first failure, doubles with each further
    /// failure, and never exceeds `max`. Defaults to 100 ms and 30 s; from 1 ms
    /// to 1 h, with `max` at least `base`.
    pub fn retry(mut self, base: Duration, max: Duration) -> Self {
        self.retry_base = base;
        self.retry_max = max;
        self
    }

    /// Sets how long after it was logged an event is delivered at the latest,
    /// including its time in the buffer. After that it is lost. Defaults to
    /// 120 s; from 0 (a single attempt) to 24 h.
    ///
    /// A last attempt begins up to 1 s before the timeout ends, even if the
    /// server requested a longer pause with `Retry-After`. An event lingers for
    /// at most half of the timeout. For a spooled event the timeout begins when
    /// the server accepts something after the first attempt, so an outage does
    /// not count against it.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Sets how long `shutdown`, `flush`, `log_async` and dropping the client wait
    /// at most.
    /// Defaults to 5 s; from 0 to 1 h.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Sets whether request bodies of more than 1 KiB are compressed with zstd
    /// at level 1. Defaults to true if the crate feature `zstd` is enabled. If
    /// the server refuses compression with status 415, the client stops using
    /// it.
    pub fn compression(mut self, compression: bool) -> Self {
        self.compression = compression;
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
    /// the events, which the client then sends again.
    pub fn http_client(self, client: reqwest::Client) -> Self {
        self.transport(HttpTransport::with_client(client))
    }

    /// Sends all requests through `transport` instead of the built-in HTTP
    /// client.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Sets a function that is called with each loss, after it was counted.
    /// Defaults to none.
    ///
    /// It runs on a thread of its own, soon after the loss, so it delays nobody
    /// and may use the client. Up to 8 MiB of lost events wait for it; further
    /// ones, and those that it loses itself, are counted in
    /// [`Stats::unreported`](crate::Stats::unreported). A shutdown waits for it
    /// until the timeout. Panics in it are caught.
    pub fn on_loss(mut self, hook: impl Fn(&Loss<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_loss = Some(Arc::new(hook));
        self
    }

    /// Sets a function that is called with each batch of delivered events, after
    /// they were counted, so that a program learns of each delivery without
    /// awaiting [`send`](crate::Client::send). Defaults to none.
    ///
    /// Like [`on_loss`](Self::on_loss), it runs on a thread of its own, soon after
    /// the delivery. Up to 4 MiB of events wait for it; further ones are counted in
    /// [`Stats::unreported_deliveries`](crate::Stats::unreported_deliveries).
    ///
    /// ```
    /// use eyego_log_client::Client;
    ///
    /// let client = Client::builder("http://localhost:3000")
    ///     .on_delivery(|delivered| {
    ///         delivered.ids().for_each(|id| println!("{id} is durable"));
    ///     })
    ///     .build()?;
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    pub fn on_delivery(mut self, hook: impl Fn(&Delivered<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.on_delivery = Some(Arc::new(hook));
        self
    }

    /// Sets a function that is called with a description of each problem: the
    /// server refuses the API key, is unreachable or sends an unexpected
    /// response, the worker panicked, or events are lost. A problem is reported
    /// again only after it was resolved, and at most one report is made per
    /// second. The function runs on a thread of its own. Defaults to a `tracing`
    /// event of level `WARN`.
    pub fn on_problem(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.hooks.on_problem = Some(Arc::new(hook));
        self
    }

    /// Sets metadata that is added to all events, such as the version of the
    /// program: a value that serializes to a JSON object. Members of an event's own
    /// metadata and of [`Client::with_metadata`](crate::Client::with_metadata) take
    /// precedence. Defaults to none. If it is not valid as metadata,
    /// [`build`](Self::build) returns an error.
    ///
    /// ```
    /// use eyego_log_client::Client;
    /// use serde_json::json;
    ///
    /// let client = Client::builder("http://localhost:3000")
    ///     .common_metadata(json!({"service": "shop", "version": "1.4.2"}))
    ///     .build()?;
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    pub fn common_metadata(mut self, metadata: impl Serialize) -> Self {
        self.common_metadata = Context::new(None, &metadata);
        self
    }

    /// Sets the share of users whose events are logged, from 0 (none) to 1 (all).
    /// Defaults to 1. Events of other users are counted in
    /// [`Stats::sampled_out`](crate::Stats::sampled_out) and not validated.
    ///
    /// Whether a user is selected depends on the user id and the rate alone. All
    /// processes select the same users, and a higher rate selects all users that a
    /// lower one does.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.sample_rate = rate;
        self
    }

    /// Sets a function that receives each valid event before it is buffered, with
    /// the metadata of the client and its scopes, and returns it, changed or not,
    /// or `None` to drop it. Defaults to none. [`DraftEvent`] has an example.
    ///
    /// It runs on the thread that logs the event, which it delays; an event is
    /// decoded and encoded again for it. A dropped event is counted in
    /// [`Stats::filtered`](crate::Stats::filtered), and `log` returns its id. A
    /// changed event is validated again. If the function panics, the event is
    /// dropped, and the problem is reported. It may log events itself; it is not
    /// called for those.
    pub fn before_send(
        mut self,
        hook: impl Fn(DraftEvent) -> Option<DraftEvent> + Send + Sync + 'static,
    ) -> Self {
        self.before_send = Some(Arc::new(hook));
        self
    }

    pub(in crate::api) fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    pub(in crate::api) fn max_event_limit(&self) -> usize {
        self.max_event_bytes
    }

    pub(in crate::api) fn shutdown_limit(&self) -> Duration {
        self.shutdown_timeout
    }
}

impl fmt::Debug for ClientBuilder {
    /// Hides the API key, and a password in the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("url", &without_credentials(&self.url))
            .field("is_disabled", &self.is_disabled)
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("api_key_file", &self.api_key_file)
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("max_batch_events", &self.max_batch_events)
            .field("max_batch_bytes", &self.max_batch_bytes)
            .field("linger", &self.linger)
            .field("max_event_bytes", &self.max_event_bytes)
            .field("max_buffer_bytes", &self.max_buffer_bytes)
            .field("overflow", &self.overflow)
            .field("max_in_flight", &self.max_in_flight)
            .field("request_timeout", &self.request_timeout)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("shutdown_timeout", &self.shutdown_timeout)
            .finish_non_exhaustive()
    }
}
