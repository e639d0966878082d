//! The client: what a program holds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use eyego_log_core::LogId;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::batch::End;
use crate::config::{Builder, Validated};
use crate::error::{ConfigError, LogError, SendError};
use crate::event::Event;
use crate::feed::Feed;
use crate::loss::{LossReason, Stats};
use crate::query::Logs;
use crate::shared::Shared;
use crate::spool::Spool;
use crate::worker;

/// Takes events without waiting and delivers them in the background; reads
/// them back.
///
/// Cloning is cheap, and all clones are one client: make one for the program,
/// not one for each request. It has a thread of its own and works under any
/// runtime and under none.
///
/// At the end of the program call [`shutdown`](Self::shutdown). Dropping the
/// last clone starts the same; outside of a tokio runtime it also waits for
/// it, inside one it must not, and what is still pending when the process ends
/// is lost.
///
/// ```no_run
/// use eyego_log_client::{Client, Event};
/// use serde_json::json;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://localhost:3000").build()?;
/// client.log(Event::new("user-123", "CLICK_BUTTON").metadata(json!({"page": "home"})))?;
/// let report = client.shutdown().await;
/// assert!(report.is_complete(), "{report:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Closes the client when the last clone is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Client {
    /// A client for the server at this URL, such as `http://localhost:3000`;
    /// a path in it is kept before `/api/v1`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }

    /// A client by environment variables:
    ///
    /// | variable | what | default |
    /// |---|---|---|
    /// | `EYEGO_LOG_URL` | [`builder`](Self::builder) | required |
    /// | `EYEGO_LOG_API_KEY` | [`api_key`](Builder::api_key) | none |
    /// | `EYEGO_LOG_API_KEY_FILE` | [`api_key_file`](Builder::api_key_file) | none |
    /// | `EYEGO_LOG_CA_FILE` | [`ca_file`](Builder::ca_file) | none |
    /// | `EYEGO_LOG_MAX_BATCH_EVENTS` | [`max_batch_events`](Builder::max_batch_events) | 500 |
    /// | `EYEGO_LOG_MAX_BATCH_BYTES` | [`max_batch_bytes`](Builder::max_batch_bytes) | 524288 |
    /// | `EYEGO_LOG_LINGER` | [`linger`](Builder::linger) | `1s` |
    /// | `EYEGO_LOG_MAX_EVENT_BYTES` | [`max_event_bytes`](Builder::max_event_bytes) | 65536 |
    /// | `EYEGO_LOG_MAX_BUFFER_BYTES` | [`max_buffer_bytes`](Builder::max_buffer_bytes) | 33554432 |
    /// | `EYEGO_LOG_OVERFLOW` | [`overflow`](Builder::overflow): `drop-newest`, `drop-oldest`, `block` (1 s) | `drop-newest` |
    /// | `EYEGO_LOG_MAX_IN_FLIGHT` | [`max_in_flight`](Builder::max_in_flight) | 4 |
    /// | `EYEGO_LOG_REQUEST_TIMEOUT` | [`request_timeout`](Builder::request_timeout) | `15s` |
    /// | `EYEGO_LOG_DELIVERY_TIMEOUT` | [`delivery_timeout`](Builder::delivery_timeout) | `2m` |
    /// | `EYEGO_LOG_SHUTDOWN_TIMEOUT` | [`shutdown_timeout`](Builder::shutdown_timeout) | `5s` |
    /// | `EYEGO_LOG_COMPRESSION` | [`compression`](Builder::compression): `zstd`, `none` | `zstd` |
    /// | `EYEGO_LOG_SPOOL_DIR` | `spool_dir`, with the feature `spool` | none |
    /// | `EYEGO_LOG_SPOOL_MAX_BYTES` | `spool_max_bytes` | 1073741824 |
    /// | `EYEGO_LOG_SPOOL_SYNC` | `spool_sync`: `batch`, or a duration | `1s` |
    ///
    /// Durations are whole numbers with `ms`, `s` or `m`. An empty variable is
    /// one that is not set. For options beside them go through
    /// [`Builder::from_env`].
    ///
    /// # Errors
    /// As [`Builder::build`]; the variable that cannot be read.
    pub fn from_env() -> Result<Self, ConfigError> {
        Builder::from_env()?.build()
    }

    pub(crate) fn start(mut config: Validated) -> Result<Self, ConfigError> {
        let spool = config.spool.take().map(Spool::open).transpose()?;
        let shared = Arc::new(Shared::new(config));
        let feed = Feed::new(&shared, spool);
        worker::spawn(Arc::clone(&shared), feed)
            .map_err(|error| ConfigError::new("build", format!("gets no thread: {error}")))?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Takes an event and returns at once: its id and time are fixed, it is
    /// written into the buffer, and delivered in the background.
    ///
    /// No I/O, no allocation once the buffer is warm, no waiting but for
    /// [`Overflow::Block`](crate::Overflow::Block). It never panics, unless
    /// the metadata's own `Serialize` does.
    ///
    /// # Errors
    /// The event's faults, in the server's words; or there is no room, or the
    /// client is shut down, and the event is counted as lost.
    ///
    /// ```
    /// use eyego_log_client::{Client, Event};
    ///
    /// # let client = Client::builder("http://localhost:9").build()?;
    /// let fault = client.log(Event::new("", "LOGIN")).unwrap_err();
    /// assert_eq!(fault.to_string(), "userId must be a non-empty string");
    /// # Ok::<(), eyego_log_client::ConfigError>(())
    /// ```
    // The event is consumed so that metadata by value need not be kept.
    #[expect(clippy::needless_pass_by_value, reason = "what is handed over is handed over")]
    pub fn log<M: Serialize>(&self, event: Event<'_, M>) -> Result<LogId, LogError> {
        self.shared().take(&event, None)
    }

    /// Takes an event as [`log`](Self::log) does, and answers when the server
    /// holds it durably, or when it is lost.
    ///
    /// The event is taken by the call itself; dropping the answer changes
    /// nothing about it. It does not wait for others to travel with, so many
    /// such calls at once cost more than `log` and one
    /// [`flush`](Self::flush).
    ///
    /// ```no_run
    /// # use eyego_log_client::{Client, Event};
    /// # async fn run(client: Client) -> Result<(), eyego_log_client::SendError> {
    /// let id = client.send(Event::new("user-123", "PAID").metadata([("cents", 4200)].into_iter().collect::<std::collections::BTreeMap<_, _>>())).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "what is handed over is handed over")]
    pub fn send<M: Serialize>(&self, event: Event<'_, M>) -> Delivery {
        let (ack, wait) = oneshot::channel();
        let taken = self.shared().take(&event, Some(ack));
        Delivery { state: taken.map(|id| (id, wait)) }
    }

    /// Answers when every event whose `log` returned before this call is
    /// settled: delivered or lost. It waits at most for the
    /// [`shutdown_timeout`](Builder::shutdown_timeout) (default 5 s).
    pub async fn flush(&self) -> Report {
        self.flush_within(self.shared().config.shutdown_timeout).await
    }

    /// [`flush`](Self::flush) with a limit of its own.
    pub async fn flush_within(&self, timeout: Duration) -> Report {
        let (epoch, settled) = self.shared().flush(deadline(timeout));
        let _ = settled.await;
        let state = self.shared().state();
        Report { unsettled: state.ledger.pending_until(epoch), stats: state.ledger.stats.clone() }
    }

    /// Takes no more events, delivers those that are there, and ends the
    /// thread; what is not delivered after the
    /// [`shutdown_timeout`](Builder::shutdown_timeout) (default 5 s) is
    /// counted as lost, or stays in the spool where there is one. For all
    /// clones; reading ends too.
    pub async fn shutdown(&self) -> Report {
        self.shutdown_within(self.shared().config.shutdown_timeout).await
    }

    /// [`shutdown`](Self::shutdown) with a limit of its own.
    pub async fn shutdown_within(&self, timeout: Duration) -> Report {
        let before = self.stats().lost;
        // The channel breaks when the worker ends.
        let _ = self.shared().close(deadline(timeout)).await;
        let stats = self.stats();
        let lost = stats.lost.get(LossReason::Shutdown) - before.get(LossReason::Shutdown);
        let unsettled = lost + stats.pending;
        Report { unsettled, stats }
    }

    /// What became of the events so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Reads logs: begins a query.
    pub fn logs(&self) -> Logs {
        Logs::new(Arc::clone(&self.handle.shared))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

fn deadline(timeout: Duration) -> Instant {
    /// Beyond this nobody waits, and clocks may overflow.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(LONGEST)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.shared().config.base_url)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let timeout = self.shared.config.shutdown_timeout;
        drop(self.shared.close(deadline(timeout)));
        // A thread of a runtime must not be blocked; whoever drops it there
        // has `shutdown` to wait with.
        if tokio::runtime::Handle::try_current().is_err() {
            self.shared.wait_closed(timeout + Duration::from_secs(1));
        }
    }
}

/// What was reached by a [`flush`](Client::flush) or a
/// [`shutdown`](Client::shutdown).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it says whether the events were delivered"]
pub struct Report {
    /// Events that it could not settle in time: after a flush they are still
    /// pending, after a shutdown they are lost, or pending in the spool until
    /// the next process.
    pub unsettled: u64,
    /// What became of all events so far, the lost ones among them.
    pub stats: Stats,
}

impl Report {
    /// Whether everything that was covered was delivered or, for a reason that
    /// `stats` names, lost in time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unsettled == 0
    }
}

/// The delivery of one event; see [`Client::send`].
#[derive(Debug)]
#[must_use = "whether the event was taken is known only to who asks"]
pub struct Delivery {
    state: Result<(LogId, Acknowledged), LogError>,
}

type Acknowledged = oneshot::Receiver<End>;

impl Delivery {
    /// The event's identity, known at once.
    ///
    /// # Errors
    /// It was not taken.
    pub fn id(&self) -> Result<LogId, LogError> {
        self.state.as_ref().map(|(id, _)| *id).map_err(Clone::clone)
    }
}

impl Future for Delivery {
    type Output = Result<LogId, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (id, wait) = match &mut self.state {
            Ok((id, wait)) => (*id, wait),
            Err(error) => return Poll::Ready(Err(error.clone().into())),
        };
        Pin::new(wait).poll(context).map(|answer| match answer {
            Ok(End::Delivered) => Ok(id),
            Ok(End::Lost(reason, message)) => Err(SendError::Lost { id, reason, message }),
            Ok(End::Kept) => Err(SendError::Spooled { id }),
            Err(_) => {
                let message = "the worker ended without an answer".to_owned();
                Err(SendError::Lost { id, reason: LossReason::Worker, message })
            }
        })
    }
}
