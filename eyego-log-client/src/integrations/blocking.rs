//! An API for programs without async (crate feature `blocking`).
//!
//! [`Client`] has the same calls as the [async client](crate::Client), but they
//! block the calling thread. Both can be used at the same time: a blocking client
//! is made from an async one with [`From`], and shares its buffer and thread.
//! [`wait`] blocks on a single future of the async client.
//!
//! These calls need no async runtime. Do not call them on a thread of one,
//! because they would block it.
//!
//! ```no_run
//! use eyego_log_client::{Event, blocking};
//!
//! let client = blocking::Client::from_env()?;
//! client.log(Event::new("user-123", "LOGIN"))?;
//! for entry in client.query().user("user-123").iter() {
//!     println!("{}", entry?.action);
//! }
//! let report = client.shutdown();
//! assert!(report.all_delivered(), "{report:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod operations;
mod query;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use eyego_log_core::{FieldErrors, LogId};
use serde::Serialize;

pub use self::operations::{DeadLetterQuery, ErasureQuery};
pub use self::query::{Export, Iter, Query, StatsQuery, Tail};
use crate::api::client;
use crate::api::client::guard::Guard;
use crate::api::stored::StoreOutcome;
use crate::model::errors::{ConfigError, LogError, SendError};
use crate::model::event::Event;
use crate::model::report::Report;
use crate::model::stats::Stats;

/// A client whose calls block the thread until they are done.
///
/// Clones share the same client, also with the async client that it was made
/// from. See [`crate::Client`] for what each call does.
#[derive(Debug, Clone)]
pub struct Client {
    inner: client::Client,
}

impl From<client::Client> for Client {
    /// Creates a blocking client that shares everything with `client`.
    fn from(client: client::Client) -> Self {
        Self { inner: client }
    }
}

impl Client {
    /// Builds a client from environment variables; see
    /// [`crate::Client::from_env`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::from_env`].
    pub fn from_env() -> Result<Self, ConfigError> {
        client::Client::from_env().map(Self::from)
    }

    /// Logs an event and returns immediately; see [`crate::Client::log`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::log`].
    pub fn log<M: Serialize>(&self, event: Event<'_, M>) -> Result<LogId, LogError> {
        self.inner.log(event)
    }

    /// Creates a client that delivers nothing; see [`crate::Client::disabled`].
    #[must_use]
    pub fn disabled() -> Self {
        client::Client::disabled().into()
    }

    /// Returns whether the client delivers nothing; see
    /// [`crate::Client::is_disabled`].
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.inner.is_disabled()
    }

    /// Returns a guard that shuts the client down when it is dropped; see
    /// [`crate::Client::guard`].
    pub fn guard(&self) -> Guard {
        self.inner.guard()
    }

    /// Returns the async client with which this one shares everything.
    #[must_use]
    pub fn async_client(&self) -> &client::Client {
        &self.inner
    }

    /// Creates a handle to the same client that adds `metadata` to all its events;
    /// see [`crate::Client::with_metadata`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::with_metadata`].
    pub fn with_metadata(&self, metadata: impl Serialize) -> Result<Self, FieldErrors> {
        self.inner.with_metadata(metadata).map(Self::from)
    }

    /// Logs an event unless the buffer is full; see [`crate::Client::try_log`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::try_log`].
    pub fn try_log<M: Serialize>(&self, event: &Event<'_, M>) -> Result<LogId, LogError> {
        self.inner.try_log(event)
    }

    /// Logs several events and returns immediately; see
    /// [`crate::Client::log_many`].
    pub fn log_many<'a, M: Serialize>(
        &self,
        events: impl IntoIterator<Item = Event<'a, M>>,
    ) -> Vec<Result<LogId, LogError>> {
        self.inner.log_many(events)
    }

    /// Logs an event and blocks until it is delivered or lost; see
    /// [`crate::Client::send`].
    ///
    /// # Errors
    /// Returns a [`SendError`] if the event was not delivered.
    pub fn send<M: Serialize>(&self, event: Event<'_, M>) -> Result<LogId, SendError> {
        wait(self.inner.send(event))
    }

    /// Logs an event and blocks until it can be read; see
    /// [`crate::Client::send_stored`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::send_stored`].
    pub fn send_stored<M: Serialize>(
        &self,
        event: Event<'_, M>,
        timeout: Duration,
    ) -> Result<StoreOutcome, SendError> {
        wait(self.inner.send_stored(event, timeout))
    }

    /// Blocks until all events logged before this call are settled; see
    /// [`crate::Client::flush`].
    pub fn flush(&self) -> Report {
        wait(self.inner.flush())
    }

    /// Like [`flush`](Self::flush), but blocks at most for `timeout`.
    pub fn flush_within(&self, timeout: Duration) -> Report {
        wait(self.inner.flush_within(timeout))
    }

    /// Delivers the pending events and ends the client's thread; see
    /// [`crate::Client::shutdown`].
    pub fn shutdown(&self) -> Report {
        wait(self.inner.shutdown())
    }

    /// Like [`shutdown`](Self::shutdown), but delivers for at most `timeout`.
    pub fn shutdown_within(&self, timeout: Duration) -> Report {
        wait(self.inner.shutdown_within(timeout))
    }

    /// Returns the counts of all events since the client was built.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Creates a query for stored events.
    pub fn query(&self) -> Query {
        Query::new(self.inner.query())
    }
}

/// Blocks the thread until `future` is done. All futures of this crate can be
/// used; other futures may need an async runtime.
///
/// ```no_run
/// # use eyego_log_client::{Client, Event, blocking};
/// # fn run(client: Client) -> Result<(), eyego_log_client::SendError> {
/// let id = blocking::wait(client.send(Event::new("user-123", "PAID")))?;
/// # Ok(())
/// # }
/// ```
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
