//! The options of a client. `connection` contains those of the connection and
//! `hooks` those that are functions. `env` reads options from environment
//! variables, and `validate` checks them.

mod connection;
mod env;
mod hooks;
mod parse;
#[cfg(feature = "spool")]
mod spool;
pub(in crate::api) mod validate;

use std::fmt;
#[cfg(feature = "spool")]
use std::path::PathBuf;
use std::time::Duration;

use eyego_log_core::FieldErrors;
use serde::Serialize;

use self::connection::ConnectionOptions;
use crate::model::overflow::Overflow;
use crate::pipeline::context::Context;
use crate::pipeline::filter::BeforeSend;
use crate::pipeline::hooks::Hooks;
#[cfg(feature = "spool")]
use crate::spool::SpoolSync;

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
    connection: ConnectionOptions,
    /// The environment variables that have set options.
    variables: Vec<&'static str>,
    is_disabled: bool,
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
    spool_max_bytes: Option<u64>,
    #[cfg(feature = "spool")]
    spool_max_age: Option<Duration>,
    #[cfg(feature = "spool")]
    spool_sync: Option<SpoolSync>,
    hooks: Hooks,
    sample_rate: f64,
    before_send: Option<BeforeSend>,
    common_metadata: Result<Context, FieldErrors>,
}

impl ClientBuilder {
    pub(in crate::api) fn new(url: String) -> Self {
        Self {
            connection: ConnectionOptions::new(url),
            variables: Vec::new(),
            is_disabled: false,
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
            spool_max_bytes: None,
            #[cfg(feature = "spool")]
            spool_max_age: None,
            #[cfg(feature = "spool")]
            spool_sync: None,
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

    /// Sets the maximum size of an event as JSON with its line break, in bytes. Defaults
    /// to 64 KiB; from 256 bytes to 16 MiB. The server has its own limit, 256 KiB by
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
    /// unless a request is retried. Requests that have had no response for two seconds
    /// do not count while the server accepts others, up to as many again. With a spool,
    /// half of the buffer is the limit as well: the other half passes events on to the
    /// spool while the server is down.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Sets how long one request may take, from connecting to the end of the
    /// response. Defaults to 15 s; from 1 ms to 10 min. A call that reads returns up to
    /// 250 ms later if the client's thread blocks. The timeout does not apply to exports
    /// and tails, which fail when nothing is received for 45 s.
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
    /// at most. `shutdown` and dropping wait up to 250 ms longer if the client's
    /// thread or a function of the program blocks. Defaults to 5 s; from 0 to 1 h.
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

    /// Sets metadata that is added to all events, such as the version of the
    /// program: a value that serializes to a JSON object. Members of an event's own
    /// metadata and of [`Client::with_metadata`](crate::Client::with_metadata) take
    /// precedence. Defaults to none. If it is not valid as metadata, or leaves no room
    /// for an event of [`max_event_bytes`](Self::max_event_bytes),
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("connection", &self.connection)
            .field("is_disabled", &self.is_disabled)
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
