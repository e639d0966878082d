//! The options of a client: what they are called, their defaults, what they
//! must be. How they are read from the environment is in `env`.

mod env;
#[cfg(feature = "spool")]
mod spool;
mod validate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::error::ConfigError;
use crate::loss::{LossHook, Lost, ProblemHook};
use crate::transport::Transport;

#[cfg(feature = "spool")]
pub use spool::SpoolSync;
pub(crate) use validate::Validated;

/// What happens to an event that finds the buffer full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It is lost: `log` answers [`LogError::Full`](crate::LogError::Full).
    #[default]
    DropNewest,
    /// The oldest batch that is not under way is lost to make room for it.
    DropOldest,
    /// `log` blocks its thread until there is room, at most this long; then
    /// as `DropNewest`. `send` does not block but answers at once.
    Block(Duration),
}

/// Makes a [`Client`], option by option.
///
/// ```
/// use std::time::Duration;
/// use eyego_log_client::{Client, Overflow};
///
/// let client = Client::builder("http://localhost:3000")
///     .linger(Duration::from_millis(200))
///     .max_buffer_bytes(8 << 20)
///     .overflow(Overflow::DropOldest)
///     .on_loss(|lost| eprintln!("{} events lost: {}", lost.count(), lost.message))
///     .build()?;
/// # Ok::<(), eyego_log_client::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    pub(crate) url: String,
    pub(crate) api_key: Option<String>,
    pub(crate) api_key_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) max_batch_events: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_buffer_bytes: usize,
    pub(crate) overflow: Overflow,
    pub(crate) max_in_flight: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) retry_base: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) compression: bool,
    #[cfg(feature = "spool")]
    pub(crate) spool: spool::SpoolDraft,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) on_loss: Option<LossHook>,
    pub(crate) on_problem: Option<ProblemHook>,
}

impl Builder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            api_key: None,
            api_key_file: None,
            ca_file: None,
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
            spool: spool::SpoolDraft::default(),
            transport: None,
            on_loss: None,
            on_problem: None,
        }
    }

    /// The API key, sent as `authorization: Bearer …`. Default: none. Never
    /// shown by `Debug`.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// A file that holds the API key and nothing else; read once, by
    /// [`build`](Self::build). Default: none. Not together with
    /// [`api_key`](Self::api_key).
    pub fn api_key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.api_key_file = Some(path.into());
        self
    }

    /// A PEM file with certificates of authorities to trust beside those of
    /// the system. Default: none.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Events in a request. Default 500; 1 to 10,000.
    pub fn max_batch_events(mut self, events: usize) -> Self {
        self.max_batch_events = events;
        self
    }

    /// Bytes in a request, before compression. Default 512 KiB; from
    /// [`max_event_bytes`](Self::max_event_bytes) to 16 MiB.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// How long an event waits for others to travel with. Default 1 s; 0 to
    /// 60 s. An event that is waited for (`send`) or flushed does not wait.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bytes of one event as JSON. Default 64 KiB; 256 bytes to 16 MiB. The
    /// server has a limit of its own (256 KiB by default).
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Bytes of all events that are not settled: waiting, under way, to be
    /// tried again. Default 32 MiB; at least four times
    /// [`max_batch_bytes`](Self::max_batch_bytes).
    pub fn max_buffer_bytes(mut self, bytes: usize) -> Self {
        self.max_buffer_bytes = bytes;
        self
    }

    /// What happens to an event that finds the buffer full. Default
    /// [`Overflow::DropNewest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Requests with events that are under way at once. Default 4; 1 to 64.
    /// With 1 the order of a thread's events is kept where nothing is retried.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// How long one request may take, from connecting to the end of its
    /// answer. Default 15 s; 1 ms to 10 min.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The pauses between attempts: random, up to `base` after the first
    /// failure, doubled with each, up to `max`. Default 100 ms and 30 s; from
    /// 1 ms, `max` not below `base` and not above an hour.
    pub fn retry(mut self, base: Duration, max: Duration) -> Self {
        self.retry_base = base;
        self.retry_max = max;
        self
    }

    /// How long after its first attempt an event is still tried again.
    /// Default 120 s; at most a day; 0 means one attempt. A pause that the
    /// server asks for by `Retry-After` (up to 5 min) is kept even beyond it.
    /// For an event that is in a spool it begins when the server takes
    /// something after that attempt: being away costs nothing then.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// How long `shutdown`, and `flush`, wait at most; also the end of a
    /// client that is dropped. Default 5 s; at most an hour.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Whether bodies above 1 KiB are compressed (zstd, level 1). Default:
    /// yes, if the feature `zstd` is on; a server that refuses it (415) gets
    /// them as they are from then on.
    pub fn compression(mut self, compression: bool) -> Self {
        self.compression = compression;
        self
    }

    /// A client of yours to send through, with its proxies, its TLS, its
    /// headers; the same as [`transport`](Self::transport) with it. It is
    /// driven on the client's thread: connections that it makes there end with
    /// [`shutdown`](Client::shutdown). Let it follow no redirects: a redirected
    /// POST would lose its events. Needs the feature `reqwest`.
    #[cfg(feature = "reqwest")]
    pub fn http_client(self, client: reqwest::Client) -> Self {
        self.transport(crate::transport::reqwest::ReqwestTransport(client))
    }

    /// Something to send through instead of HTTP.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Called with the events of each loss, after they were counted: on the
    /// client's own thread, on the one whose event found no room, or on the one
    /// that builds a client whose spool is damaged. It should
    /// return soon, since the worker waits for it. A panic in it is caught.
    /// Default: none.
    pub fn on_loss(mut self, hook: impl Fn(&Lost<'_>) + Send + Sync + 'static) -> Self {
        self.on_loss = Some(Arc::new(hook));
        self
    }

    /// Called with a sentence, the first time that something of its kind goes
    /// wrong since it last went well: the API key is refused, the server does
    /// not answer or speaks nonsense, the worker panicked, events are lost.
    /// Default: one line on the standard error stream.
    pub fn on_problem(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_problem = Some(Arc::new(hook));
        self
    }

    /// Starts the client: a thread, and nothing on the network yet. A server
    /// that cannot be reached is no error here.
    ///
    /// # Errors
    /// The option that is unusable or contradicts another, the file that
    /// cannot be read, the thread that cannot be started.
    pub fn build(self) -> Result<Client, ConfigError> {
        Client::start(validate::validate(self)?)
    }

    /// What `build` makes of it, for the models.
    #[cfg(all(test, eyego_loom))]
    pub(crate) fn validated(self) -> Validated {
        validate::validate(self).unwrap()
    }
}

impl fmt::Debug for Builder {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("url", &validate::without_userinfo(&self.url))
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
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
