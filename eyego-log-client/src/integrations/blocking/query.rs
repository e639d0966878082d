//! Queries whose calls block the thread.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{LogEntry, LogId, Timestamp};

use super::wait;
use crate::api::export::ExportFormat;
use crate::api::query::Page;
use crate::api::query::stream::LogStream;
use crate::api::stats::{Interval, Statistics};
use crate::api::tail::TailItem;
use crate::api::{export, query, stats, tail};
use crate::model::errors::{ExportError, RequestError};

/// A query for stored events whose calls block the thread; see
/// [`crate::Query`] for the filters.
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched or iterated"]
pub struct Query {
    inner: query::Query,
}

impl Query {
    pub(super) fn new(inner: query::Query) -> Self {
        Self { inner }
    }

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
    pub fn fetch(&self) -> Result<Page, RequestError> {
        wait(self.inner.fetch())
    }

    /// Blocks until one event is read by its id; see [`crate::Query::get`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Query::get`].
    pub fn get(&self, id: LogId) -> Result<Option<LogEntry>, RequestError> {
        wait(self.inner.get(id))
    }

    /// Counts the matching events over time; see [`crate::Query::stats`].
    pub fn stats(self) -> StatsQuery {
        StatsQuery { inner: self.inner.stats() }
    }

    /// Exports all matching events; see [`crate::Query::export`].
    pub fn export(self, format: ExportFormat) -> Export {
        Export { inner: self.inner.export(format) }
    }

    /// Follows the matching events as they are stored; see [`crate::Query::tail`].
    pub fn tail(self) -> Tail {
        Tail { inner: self.inner.tail() }
    }

    /// Iterates over the events of all pages, each read when it is needed. The
    /// iterator ends after the last event or the first error.
    pub fn iter(self) -> Iter {
        Iter(self.inner.stream())
    }
}

impl IntoIterator for Query {
    type Item = Result<LogEntry, RequestError>;
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
    type Item = Result<LogEntry, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next_event())
    }
}

/// Counts the events of a query over time; see [`crate::StatsQuery`].
#[derive(Debug, Clone)]
#[must_use = "nothing is counted until it is fetched"]
pub struct StatsQuery {
    inner: stats::StatsQuery,
}

impl StatsQuery {
    /// Sets the length of the buckets; see [`crate::StatsQuery::interval`].
    pub fn interval(self, interval: Interval) -> Self {
        Self { inner: self.inner.interval(interval) }
    }

    /// Sets the IANA time zone in which days start; see
    /// [`crate::StatsQuery::time_zone`].
    pub fn time_zone(self, name: impl Into<String>) -> Self {
        Self { inner: self.inner.time_zone(name) }
    }

    /// Counts each action separately.
    pub fn by_action(self) -> Self {
        Self { inner: self.inner.by_action() }
    }

    /// Counts each user separately.
    pub fn by_user(self) -> Self {
        Self { inner: self.inner.by_user() }
    }

    /// Counts each value at this path of the metadata separately.
    pub fn by_metadata(self, path: impl AsRef<str>) -> Self {
        Self { inner: self.inner.by_metadata(path) }
    }

    /// Sets how many values are listed. Defaults to 10; from 1 to 100.
    pub fn top(self, values: u32) -> Self {
        Self { inner: self.inner.top(values) }
    }

    /// Blocks until the events are counted; see [`crate::StatsQuery::fetch`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::StatsQuery::fetch`].
    pub fn fetch(&self) -> Result<Statistics, RequestError> {
        wait(self.inner.fetch())
    }
}

/// An export of all events of a query; see [`crate::Export`].
#[derive(Debug, Clone)]
#[must_use = "nothing is exported until the export is written or saved"]
pub struct Export {
    inner: export::Export,
}

impl Export {
    /// Sets the columns of metadata in a CSV; see [`crate::Export::columns`].
    pub fn columns<P: AsRef<str>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        Self { inner: self.inner.columns(paths) }
    }

    /// Blocks until the export is written; see [`crate::Export::write_to`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Export::write_to`].
    pub fn write_to(&self, writer: impl Write + Send + 'static) -> Result<u64, ExportError> {
        wait(self.inner.write_to(writer))
    }

    /// Blocks until the export is saved as a file; see [`crate::Export::save`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Export::save`].
    pub fn save(&self, path: impl Into<PathBuf>) -> Result<u64, ExportError> {
        wait(self.inner.save(path))
    }
}

/// An iterator over the matching events as they are stored. It blocks until there is
/// one, resumes by itself, and ends after an error; see [`crate::Tail`].
#[derive(Debug)]
#[must_use = "an iterator does nothing until it is consumed"]
pub struct Tail {
    inner: tail::Tail,
}

impl Tail {
    /// Starts with this many events that are already stored; see
    /// [`crate::Tail::last`].
    pub fn last(self, events: u32) -> Self {
        Self { inner: self.inner.last(events) }
    }

    /// Continues after the event at which an earlier tail had this token.
    pub fn after(self, token: impl Into<String>) -> Self {
        Self { inner: self.inner.after(token) }
    }

    /// Returns the position of the last item; see [`crate::Tail::token`].
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.inner.token()
    }
}

impl Iterator for Tail {
    type Item = Result<TailItem, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.inner.next_item())
    }
}
