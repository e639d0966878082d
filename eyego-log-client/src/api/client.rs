//! The client: how it is built, logs, flushes and shuts down.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use eyego_log_core::{LogId, LogIdGenerator};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::api::builder::ClientBuilder;
use crate::api::builder::validate::{Validated, validate};
use crate::api::query::Query;
use crate::api::reader::Reader;
use crate::delivery::BatchSource;
use crate::delivery::dispatch::Dispatcher;
use crate::delivery::mailbox::Mailbox;
use crate::delivery::sender::Sender;
use crate::delivery::worker::Worker;
use crate::model::errors::{ConfigError, LogError, SendError};
use crate::model::event::Event;
use crate::model::loss_reason::LossReason;
use crate::model::stats::{LossCounts, Stats};
use crate::pipeline::batch::{Ack, Acknowledgement};
use crate::pipeline::encode;
use crate::pipeline::event_queue::EventQueue;
use crate::pipeline::problems::ProblemKind;
use crate::pipeline::reporter::{Reporter, is_in_hook};
use crate::spool::Spool;
use crate::sync::Notify;
use crate::sync::process::Process;
use crate::sync::timer::Timer;

/// How much longer than its timeout a shutdown waits for the client's threads to
/// settle and report what is left.
const GRACE: Duration = Duration::from_millis(250);

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
}

/// The part that all clones share.
struct Inner {
    queue: Arc<EventQueue>,
    reporter: Reporter,
    reader: Reader,
    timer: Timer,
    process: Arc<Process>,
    ids: LogIdGenerator,
    max_event_bytes: usize,
    shutdown_timeout: Duration,
}

impl ClientBuilder {
    /// Builds the client and starts its thread. This does not connect to the
    /// server, so an unreachable server is not an error.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] that names the option if an option is invalid
    /// or contradicts another, if a file cannot be read, if the spool directory
    /// cannot be used, or if the thread cannot be started.
    pub fn build(self) -> Result<Client, ConfigError> {
        let Validated {
            endpoint,
            transport,
            queue,
            dispatch,
            request_timeout,
            spool,
            max_event_bytes,
            shutdown_timeout,
            on_loss,
            on_problem,
        } = validate(self)?;
        let spool = spool.map(Spool::open).transpose()?;
        let notify = Arc::new(Notify::new());
        let process = Arc::new(Process::current());
        let reporter = Reporter::new(on_loss, on_problem);
        let queue = Arc::new(EventQueue::new(queue, reporter.clone(), Arc::clone(&notify)));
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&notify), Arc::clone(&process)));
        let endpoint = Arc::new(endpoint);
        let spool = spool.map(|(spool, recovered)| {
            queue.recover(recovered.found.events, &recovered.lost);
            queue.update_stats(|stats| stats.spool_bytes = spool.bytes());
            (spool, recovered.found)
        });
        let options = queue.options();
        let source = BatchSource::new(spool, options.batch.bytes, options.max_bytes);
        let reader = Reader::new(Arc::clone(&mailbox), Arc::clone(&endpoint));
        let sender = Sender { transport, endpoint, mailbox: Arc::clone(&mailbox), request_timeout };
        let delivery_timeout = dispatch.retry.delivery_timeout;
        let dispatcher = Dispatcher::new(dispatch, fastrand::Rng::new());
        let worker = Worker {
            queue: Arc::clone(&queue),
            mailbox,
            reporter: reporter.clone(),
            notify,
            sender,
            source,
            dispatcher,
            delivery_timeout,
        };
        worker.spawn().map_err(|error| {
            ConfigError::new("build", format!("cannot start the client's thread: {error}"))
        })?;
        let ids = LogIdGenerator::new();
        let timer = Timer::default();
        let inner = Inner {
            queue,
            reporter,
            reader,
            timer,
            process,
            ids,
            max_event_bytes,
            shutdown_timeout,
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

impl Client {
    /// Creates a builder for a client of the server at `url`, such as
    /// `http://localhost:3000`. If the URL has a path, `/api/v1` is appended to
    /// it.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url.into())
    }

    /// Builds a client from environment variables.
    ///
    /// | variable | option |
    /// |---|---|
    /// | `EYEGO_LOG_URL` | [`builder`](Self::builder); required |
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
    /// # Errors
    /// Returns a [`ConfigError`] if `EYEGO_LOG_URL` is not set, if a variable
    /// cannot be parsed, or for any reason listed at [`ClientBuilder::build`].
    pub fn from_env() -> Result<Self, ConfigError> {
        ClientBuilder::from_env()?.build()
    }

    /// Logs an event and returns immediately. The event's id and timestamp are
    /// fixed, it is encoded and buffered, and then delivered in the background.
    ///
    /// This performs no I/O, does not allocate once the buffer is warm, and
    /// blocks only with [`Overflow::Block`](crate::Overflow::Block). It never
    /// panics unless the metadata's `Serialize` implementation does.
    ///
    /// # Errors
    /// Returns [`LogError::Invalid`] or [`LogError::TooLarge`] if the event is
    /// not valid. Returns [`LogError::Full`] or [`LogError::Closed`], and counts
    /// the event as lost, if the buffer is full or the client is shut down.
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// # let client = Client::builder("http://localhost:9").build()?;
    /// let error = client.log(Event::new("", "LOGIN")).unwrap_err();
    /// assert_eq!(error.to_string(), "userId must be a non-empty string");
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "callers hand the event over")]
    pub fn log<M: Serialize>(&self, event: Event<'_, M>) -> Result<LogId, LogError> {
        self.enqueue(&event, None)
    }

    /// Logs an event like [`log`](Self::log) does, and returns a future that
    /// resolves once the event is delivered or lost.
    ///
    /// The event is buffered by the call itself; dropping the future does not
    /// cancel it. The event does not linger for others to share its request, so
    /// for many events [`log`](Self::log) and one [`flush`](Self::flush) cost
    /// less.
    ///
    /// ```no_run
    /// # use eyego_log_client::{Client, Event};
    /// # async fn run(client: Client) -> Result<(), eyego_log_client::SendError> {
    /// let id = client.send(Event::new("user-123", "PAID")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "callers hand the event over")]
    pub fn send<M: Serialize>(&self, event: Event<'_, M>) -> Delivery {
        let (ack, acknowledgement) = oneshot::channel();
        let result = self.enqueue(&event, Some(ack));
        Delivery { state: result.map(|id| (id, acknowledgement)) }
    }

    fn enqueue<M: Serialize>(
        &self,
        event: &Event<'_, M>,
        ack: Option<Ack>,
    ) -> Result<LogId, LogError> {
        let Inner { queue, process, ids, max_event_bytes, .. } = &*self.inner;
        let now = SystemTime::now();
        if process.is_forked_at(now) {
            process.lose_event();
            return Err(LogError::Forked);
        }
        let result = encode::with_line(event, ids, now, *max_event_bytes, |id, line| {
            queue.enqueue(line, ack)?;
            Ok(id)
        });
        if matches!(result, Err(LogError::Invalid(_) | LogError::TooLarge { .. })) {
            queue.update_stats(|stats| stats.invalid += 1);
        }
        result
    }

    /// Logs an event for a layer, which cannot return an error to its caller. An
    /// invalid event is therefore reported as a problem.
    #[cfg_attr(
        not(any(feature = "tracing", feature = "tower")),
        expect(dead_code, reason = "only the layers call it")
    )]
    pub(crate) fn log_for_layer<M: Serialize>(&self, event: &Event<'_, M>) {
        if let Err(error @ (LogError::Invalid(_) | LogError::TooLarge { .. })) =
            self.enqueue(event, None)
        {
            let introduction = format!(
                "a layer logs an invalid event of user {} with action {}: ",
                event.user_id, event.action
            );
            self.inner.reporter.note(ProblemKind::Invalid, &introduction, &error.to_string());
        }
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
        timer.within(deadline, settled).await;
        let (unsettled, stats) = queue.pending_until(epoch);
        Report { unsettled, stats }
    }

    /// Stops accepting events, delivers the pending ones and ends the client's
    /// thread, for all clones. Reads fail afterwards.
    ///
    /// Events that cannot be delivered within the
    /// [`shutdown_timeout`](ClientBuilder::shutdown_timeout) are counted as
    /// lost. With a spool they remain there instead.
    pub async fn shutdown(&self) -> Report {
        self.shutdown_within(self.inner.shutdown_timeout).await
    }

    /// Like [`shutdown`](Self::shutdown), but delivers for at most `timeout`.
    pub async fn shutdown_within(&self, timeout: Duration) -> Report {
        let Inner { queue, reporter, timer, process, .. } = &*self.inner;
        let before = self.stats().lost;
        if !process.is_forked() {
            let deadline = deadline_after(timeout);
            let ended = queue.close(deadline);
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
        Guard { client: self.clone(), timeout: self.inner.shutdown_timeout }
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
        Query::new(self.inner.reader.clone())
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self) -> &Mailbox {
        self.inner.reader.mailbox()
    }
}

fn deadline_after(timeout: Duration) -> Instant {
    /// Prevents an overflow of the clock.
    const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(MAX_TIMEOUT)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.inner.reader.base_url())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Shuts down and blocks until that is done or `timeout` has passed.
    fn close_blocking(&self, timeout: Duration) {
        if self.process.is_forked() {
            return;
        }
        let deadline = deadline_after(timeout);
        drop(self.queue.close(deadline));
        let is_in_hook = is_in_hook();
        // A hook would wait for itself.
        self.queue.wait_closed(timeout + GRACE);
        if !is_in_hook {
            self.reporter.wait_drained(deadline + GRACE);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.process.is_forked() {
            return;
        }
        // A runtime's thread must not be blocked.
        if tokio::runtime::Handle::try_current().is_err() {
            self.close_blocking(self.shutdown_timeout);
            return;
        }
        let pending = self.queue.stats().pending;
        drop(self.queue.close(deadline_after(self.shutdown_timeout)));
        if pending > 0 {
            tracing::warn!(
                target: "eyego_log_client",
                "the client was dropped in an async runtime with {pending} undelivered events, \
                 which are lost if the process exits now: await `Client::shutdown`, or keep a \
                 `Client::guard` in `main`"
            );
        }
    }
}

/// Shuts the client down when it is dropped, and blocks the thread for up to the
/// [`shutdown_timeout`](ClientBuilder::shutdown_timeout) until that is done. See
/// [`Client::guard`].
///
/// If events are left then, their number is reported through `tracing`.
#[derive(Debug)]
#[must_use = "a guard that is dropped immediately shuts the client down immediately"]
pub struct Guard {
    client: Client,
    timeout: Duration,
}

impl Guard {
    /// Sets how long the drop waits at most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let report = self.client.shutdown_blocking(self.timeout);
        if !report.is_settled() {
            let Report { unsettled, .. } = report;
            tracing::warn!(
                target: "eyego_log_client",
                "the client was shut down with {unsettled} undelivered events"
            );
        }
    }
}

/// The result of a [`flush`](Client::flush) or [`shutdown`](Client::shutdown).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the report says whether the events were delivered"]
pub struct Report {
    /// The number of events that were not settled in time. After a flush they
    /// are still pending. After a shutdown they are lost, or pending in the
    /// spool until the next process delivers them.
    pub unsettled: u64,
    /// The counts of all events since the client was built.
    pub stats: Stats,
}

impl Report {
    /// Returns whether every event that the call covered was settled in time:
    /// it was either delivered, or lost for a reason that `stats.lost` counts.
    ///
    /// This can be true although events were lost; see
    /// [`all_delivered`](Self::all_delivered).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Returns whether every event that the call covered was delivered, and no
    /// event has been lost since the client was built.
    #[must_use]
    pub fn all_delivered(&self) -> bool {
        self.is_settled() && self.stats.lost.total() == 0
    }
}

/// The future that [`Client::send`] returns. It resolves to the event's id once
/// the event is delivered.
#[derive(Debug)]
#[must_use = "only this future says whether the event was accepted and delivered"]
pub struct Delivery {
    state: Result<(LogId, oneshot::Receiver<Acknowledgement>), LogError>,
}

impl Delivery {
    /// Returns the event's id without waiting for the delivery.
    ///
    /// # Errors
    /// Returns the [`LogError`] if the event was not accepted.
    pub fn id(&self) -> Result<LogId, LogError> {
        self.state.as_ref().map(|(id, _)| *id).map_err(Clone::clone)
    }
}

impl Future for Delivery {
    type Output = Result<LogId, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (id, receiver) = match &mut self.state {
            Ok((id, receiver)) => (*id, receiver),
            Err(error) => return Poll::Ready(Err(error.clone().into())),
        };
        Pin::new(receiver).poll(context).map(|acknowledgement| match acknowledgement {
            Ok(Acknowledgement::Delivered) => Ok(id),
            Ok(Acknowledgement::Lost { reason, message }) => {
                Err(SendError::Lost { id, reason, message })
            }
            Ok(Acknowledgement::Spooled) => Err(SendError::Spooled { id }),
            Err(_) => {
                let message = "the worker thread ended unexpectedly".to_owned();
                Err(SendError::Lost { id, reason: LossReason::WorkerFailed, message })
            }
        })
    }
}
