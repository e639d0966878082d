//! The client: its handles, and how it is flushed and shut down.
//!
//! | module | contents |
//! |---|---|
//! | `accept` | the calls that log events |
//! | `build` | wires the parts together |
//! | `delivery` | the future of one event |
//! | `guard` | shuts down at the end of a scope |
//! | `inner` | what all clones share, and how it ends |

mod accept;
mod build;
pub(crate) mod delivery;
pub(crate) mod guard;
mod inner;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eyego_log_core::FieldErrors;
use serde::Serialize;

use self::guard::Guard;
use self::inner::{GRACE, Inner};
use crate::api::builder::ClientBuilder;
use crate::api::caller::Caller;
use crate::api::query::Query;
#[cfg(test)]
use crate::delivery::mailbox::Mailbox;
use crate::model::errors::ConfigError;
use crate::model::loss_reason::LossReason;
use crate::model::report::Report;
use crate::model::stats::{LossCounts, Stats};
use crate::pipeline::context::Context as MetadataContext;
use crate::pipeline::encode;
use crate::pipeline::hooks::is_in_hook;

/// Logs events without blocking, delivers them in the background, and reads
/// stored events back.
///
/// A client owns a thread and works under any async runtime, and without one.
/// Clones are cheap and share the same client: create one client for the whole
/// program, not one per request.
///
/// Await [`shutdown`](Self::shutdown) before the program exits, or keep a
/// [`guard`](Self::guard) in `main`. Dropping the last clone also starts a
/// shutdown. Outside a tokio runtime the drop waits for it. Inside a runtime it
/// must not block; it reports the number of undelivered events through `tracing`,
/// and those that are still pending when the process exits are lost.
///
/// ```no_run
/// use eyego_log_client::{Client, Event};
/// use serde_json::json;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://localhost:3000").build()?;
/// client.log(Event::new("user-123", "CLICK_BUTTON").metadata(json!({"page": "home"})))?;
/// let report = client.shutdown().await;
/// assert!(report.all_delivered(), "{report:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// The metadata that is added to the events of this handle.
    context: Option<Arc<MetadataContext>>,
}

/// A panic leaves what clones share consistent; see `sync::lock`.
impl UnwindSafe for Client {}
impl RefUnwindSafe for Client {}

impl Client {
    /// Creates a builder for a client of the server at `url`, such as
    /// `http://localhost:3000`. If the URL has a path, `/api/v1` is appended to
    /// it, unless it ends with `/api/v1` already.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url.into())
    }

    /// Builds a client from environment variables.
    ///
    /// | variable | option |
    /// |---|---|
    /// | `EYEGO_LOG_URL` | [`builder`](Self::builder) |
    /// | `EYEGO_LOG_DISABLED` | [`disabled`](ClientBuilder::disabled): `1` or `true`, `0` or `false` |
    /// | `EYEGO_LOG_API_KEY` | [`api_key`](ClientBuilder::api_key) |
    /// | `EYEGO_LOG_API_KEY_FILE` | [`api_key_file`](ClientBuilder::api_key_file) |
    /// | `EYEGO_LOG_CA_FILE` | [`ca_file`](ClientBuilder::ca_file) |
    /// | `EYEGO_LOG_IDENTITY_FILE` | [`identity_file`](ClientBuilder::identity_file) |
    /// | `EYEGO_LOG_MAX_BATCH_EVENTS` | [`max_batch_events`](ClientBuilder::max_batch_events) |
    /// | `EYEGO_LOG_MAX_BATCH_BYTES` | [`max_batch_bytes`](ClientBuilder::max_batch_bytes) |
    /// | `EYEGO_LOG_LINGER` | [`linger`](ClientBuilder::linger) |
    /// | `EYEGO_LOG_MAX_EVENT_BYTES` | [`max_event_bytes`](ClientBuilder::max_event_bytes) |
    /// | `EYEGO_LOG_MAX_BUFFER_BYTES` | [`max_buffer_bytes`](ClientBuilder::max_buffer_bytes) |
    /// | `EYEGO_LOG_OVERFLOW` | [`overflow`](ClientBuilder::overflow): `drop-newest`, `drop-oldest`, or `block` (for up to 1 s) |
    /// | `EYEGO_LOG_MAX_IN_FLIGHT` | [`max_in_flight`](ClientBuilder::max_in_flight) |
    /// | `EYEGO_LOG_REQUEST_TIMEOUT` | [`request_timeout`](ClientBuilder::request_timeout) |
    /// | `EYEGO_LOG_DELIVERY_TIMEOUT` | [`delivery_timeout`](ClientBuilder::delivery_timeout) |
    /// | `EYEGO_LOG_SHUTDOWN_TIMEOUT` | [`shutdown_timeout`](ClientBuilder::shutdown_timeout) |
    /// | `EYEGO_LOG_SAMPLE_RATE` | [`sample_rate`](ClientBuilder::sample_rate), such as `0.1` |
    /// | `EYEGO_LOG_COMPRESSION` | [`compression`](ClientBuilder::compression): `zstd` or `none` |
    /// | `EYEGO_LOG_SPOOL_DIR` | [`spool_dir`](ClientBuilder::spool_dir) |
    /// | `EYEGO_LOG_SPOOL_MAX_BYTES` | [`spool_max_bytes`](ClientBuilder::spool_max_bytes) |
    /// | `EYEGO_LOG_SPOOL_MAX_AGE` | [`spool_max_age`](ClientBuilder::spool_max_age) |
    /// | `EYEGO_LOG_SPOOL_SYNC` | [`spool_sync`](ClientBuilder::spool_sync): `batch`, or a duration |
    ///
    /// The methods document the default and range of each option. Sizes are
    /// whole numbers of bytes. Durations have a unit, such as `500ms`, `5s` or
    /// `2m`. An empty variable counts as unset. To set other options as well,
    /// use [`ClientBuilder::from_env`].
    ///
    /// **Without `EYEGO_LOG_URL` the client is [disabled](Self::disabled)**, so that
    /// a program runs where there is no server, such as in tests. This is reported
    /// once per process, as a `tracing` event of level `WARN`, unless `EYEGO_LOG_DISABLED` is
    /// set to `1`. With `EYEGO_LOG_DISABLED` set to `0`, a missing URL is an error.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if a variable cannot be parsed, or for any reason
    /// listed at [`ClientBuilder::build`].
    pub fn from_env() -> Result<Self, ConfigError> {
        ClientBuilder::from_env()?.build()
    }

    /// Creates a client that delivers nothing, for programs that run without a
    /// server. It validates events, discards them and counts them in
    /// [`Stats::disabled`]. It has no thread, `flush` and `shutdown` return
    /// immediately, and reads return [`RequestError::Disabled`](crate::RequestError).
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// let client = Client::disabled();
    /// client.log(Event::new("user-123", "LOGIN"))?;
    /// assert_eq!((client.stats().accepted, client.stats().disabled), (0, 1));
    /// # Ok::<(), eyego_log_client::LogError>(())
    /// ```
    #[must_use]
    pub fn disabled() -> Self {
        build::disabled(&ClientBuilder::new(String::new()))
    }

    /// Returns whether the client delivers nothing; see
    /// [`disabled`](Self::disabled).
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.inner.filter.as_ref().is_some_and(|filter| filter.is_disabled)
    }

    /// Creates a handle to the same client that adds `metadata` to all its events,
    /// such as the id of the current request. It has everything that the client
    /// has, and can be passed on, cloned and extended with more metadata. Members
    /// of an event's own metadata take precedence, then those of the last scope.
    ///
    /// The metadata is encoded once, by this call.
    ///
    /// # Errors
    /// Returns the errors if `metadata` does not serialize to a JSON object that
    /// is valid as an event's metadata, or if even the smallest event with it would be
    /// larger than [`max_event_bytes`](ClientBuilder::max_event_bytes).
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    /// use serde_json::json;
    ///
    /// # fn run(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = client.with_metadata(json!({"requestId": "r-7", "tenant": "acme"}))?;
    /// request.log(Event::new("user-123", "LOGIN"))?;
    /// request.log(Event::new("user-123", "SEARCH").field("query", "shoes"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_metadata(&self, metadata: impl Serialize) -> Result<Self, FieldErrors> {
        let context = MetadataContext::new(self.context.as_deref(), &metadata)?;
        encode::check_size(&context, self.inner.max_event_bytes)?;
        Ok(Self { inner: Arc::clone(&self.inner), context: Some(Arc::new(context)) })
    }

    /// Waits until every event whose `log` returned before this call is
    /// settled, that is delivered or lost. Waits at most for the
    /// [`shutdown_timeout`](ClientBuilder::shutdown_timeout).
    pub async fn flush(&self) -> Report {
        self.flush_within(self.inner.shutdown_timeout).await
    }

    /// Like [`flush`](Self::flush), but waits at most for `timeout`.
    pub async fn flush_within(&self, timeout: Duration) -> Report {
        let Inner { queue, timer, process, .. } = &*self.inner;
        if process.is_forked() {
            return Report { unsettled: 0, stats: self.stats() };
        }
        let deadline = deadline_after(timeout);
        let (epoch, settled) = queue.flush(deadline);
        self.inner.wait_for_thread(deadline).await;
        timer.within(deadline, settled).await;
        let (unsettled, stats) = queue.pending_until(epoch);
        Report { unsettled, stats }
    }

    /// Stops accepting events, delivers the pending ones and ends the client's
    /// thread, for all clones. Reads fail afterwards.
    ///
    /// Events that cannot be delivered within the
    /// [`shutdown_timeout`](ClientBuilder::shutdown_timeout) are counted as
    /// lost. With a spool they remain there instead. The earliest timeout of all
    /// shutdowns, guards and drops of the client applies to all of them.
    pub async fn shutdown(&self) -> Report {
        self.shutdown_within(self.inner.shutdown_timeout).await
    }

    /// Like [`shutdown`](Self::shutdown), but delivers for at most `timeout`. Returns up
    /// to 250 ms later if the client's thread or a function of the program blocks.
    pub async fn shutdown_within(&self, timeout: Duration) -> Report {
        let Inner { queue, reporter, timer, process, .. } = &*self.inner;
        let before = self.stats().lost;
        if !process.is_forked() {
            let deadline = deadline_after(timeout);
            let ended = queue.close(deadline);
            self.inner.wait_for_thread(deadline).await;
            self.inner.give_up_without_thread();
            timer.within(deadline + GRACE, ended).await;
            // The hook would wait for itself.
            if !is_in_hook() {
                timer.within(deadline + GRACE, reporter.drained()).await;
            }
        }
        self.shutdown_report(&before)
    }

    /// Like [`shutdown_within`](Self::shutdown_within), but blocks the thread.
    fn shutdown_blocking(&self, timeout: Duration) -> Report {
        let before = self.stats().lost;
        self.inner.close_blocking(timeout);
        self.shutdown_report(&before)
    }

    fn shutdown_report(&self, before: &LossCounts) -> Report {
        let stats = self.stats();
        let lost = stats.lost.get(LossReason::Shutdown) - before.get(LossReason::Shutdown);
        let unsettled = lost + stats.pending;
        Report { unsettled, stats }
    }

    /// Returns a guard that shuts the client down when it is dropped, and blocks
    /// the thread until that is done. Keep it in `main`, declared after the
    /// async runtime has started, so that no event is lost when `main` returns,
    /// also early with `?`:
    ///
    /// ```no_run
    /// use eyego_log_client::{Client, Event};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// // In `#[tokio::main] async fn main()`:
    /// let client = Client::builder("http://localhost:3000").build()?;
    /// let _guard = client.guard();
    /// client.log(Event::new("user-123", "LOGIN"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn guard(&self) -> Guard {
        Guard::new(self.clone(), self.inner.shutdown_timeout)
    }

    /// Returns the counts of all events since the client was built. In a forked
    /// child of the process that built it, these are only the events that were
    /// logged, and lost, in the child.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Inner { queue, process, .. } = &*self.inner;
        if process.is_forked() {
            let mut stats = Stats { accepted: process.lost(), ..Stats::default() };
            stats.lost.add(LossReason::Forked, process.lost());
            return stats;
        }
        queue.stats()
    }

    /// Creates a query for stored events.
    pub fn query(&self) -> Query {
        Query::new(self.inner.caller.clone())
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.inner.caller
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.inner.caller.mailbox()
    }
}

pub(super) fn deadline_after(timeout: Duration) -> Instant {
    /// Prevents an overflow of the clock.
    const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(MAX_TIMEOUT)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.inner.caller.base_url())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
