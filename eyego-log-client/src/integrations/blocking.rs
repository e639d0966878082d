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

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{FieldErrors, LogEntry, LogId, Timestamp};
use serde::Serialize;

use crate::api::client::Report;
use crate::api::query::{LogStream, Page};
use crate::api::{client, query};
use crate::model::errors::{ConfigError, LogError, ReadError, SendError};
use crate::model::event::Event;
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
        Query { inner: self.inner.query() }
    }
}

/// A query for stored events whose calls block the thread; see
/// [`crate::Query`] for the filters.
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched or iterated"]
pub struct Query {
    inner: query::Query,
}

impl Query {
    /// Keeps only events of this user.
    pub fn user(self, user_id: impl Into<String>) -> Self {
        Self { inner: self.inner.user(user_id) }
    }

    /// Keeps only events with this action.
    pub fn action(self, action: impl Into<String>) -> Self {
        Self { inner: self.inner.action(action) }
    }

    /// Keeps only events at or after this time.
    pub fn since(self, time: impl Into<Timestamp>) -> Self {
        Self { inner: self.inner.since(time) }
    }

    /// Keeps only events before this time.
    pub fn until(self, time: impl Into<Timestamp>) -> Self {
        Self { inner: self.inner.until(time) }
    }

    /// Keeps only events whose metadata has this value at this path; see
    /// [`crate::Query::metadata`].
    pub fn metadata(self, path: impl AsRef<str>, value: impl fmt::Display) -> Self {
        Self { inner: self.inner.metadata(path, value) }
    }

    /// Sets the maximum number of events in a page. Defaults to 10; from 1 to
    /// 1000.
    pub fn limit(self, limit: u32) -> Self {
        Self { inner: self.inner.limit(limit) }
    }

    /// Sets the order of the events. Defaults to newest first.
    pub fn order(self, order: Order) -> Self {
        Self { inner: self.inner.order(order) }
    }

    /// Starts at a page number, beginning with 1; see [`crate::Query::page`].
    pub fn page(self, page: u64) -> Self {
        Self { inner: self.inner.page(page) }
    }

    /// Starts after the last event of the page that returned this cursor.
    pub fn cursor(self, cursor: Cursor) -> Self {
        Self { inner: self.inner.cursor(cursor) }
    }

    /// Blocks until one page is read; see [`crate::Query::fetch`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Query::fetch`].
    pub fn fetch(&self) -> Result<Page, ReadError> {
        wait(self.inner.fetch())
    }

    /// Blocks until one event is read by its id; see [`crate::Query::get`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Query::get`].
    pub fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        wait(self.inner.get(id))
    }

    /// Iterates over the events of all pages, each read when it is needed. The
    /// iterator ends after the last event or the first error.
    pub fn iter(self) -> Iter {
        Iter(self.inner.stream())
    }
}

impl IntoIterator for Query {
    type Item = Result<LogEntry, ReadError>;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// An iterator over the events of a [`Query`].
#[derive(Debug)]
#[must_use = "an iterator does nothing until it is consumed"]
pub struct Iter(LogStream);

impl Iterator for Iter {
    type Item = Result<LogEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next_event())
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
