//! Queries for stored events, by page or as a stream.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use eyego_log_core::wire::{LogResponse, LogsPage};
use eyego_log_core::{FieldError, FieldErrors, LogEntry, LogId, LogQuery, Timestamp};
use futures_core::Stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::reader::Reader;
use crate::model::errors::{ReadError, StatusError};
use crate::transport::BoxFuture;

/// The characters to percent-encode in a query string.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A query for stored events. An event must match all filters.
///
/// ```no_run
/// use eyego_log_client::{Client, Order};
///
/// # async fn run(client: Client) -> Result<(), eyego_log_client::ReadError> {
/// let page = client
///     .query()
///     .user("user-123")
///     .metadata("cart.items", 2)
///     .order(Order::Ascending)
///     .limit(20)
///     .fetch()
///     .await?;
/// for entry in &page.data {
///     println!("{} {} {}", entry.timestamp, entry.action, entry.metadata.as_json());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a query does nothing until it is fetched or streamed"]
pub struct Query {
    reader: Reader,
    query: LogQuery,
    errors: FieldErrors,
}

/// One page of stored events.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The events, in the order of the query.
    pub data: Vec<LogEntry>,
    /// The position of the next page, or `None` if this is the last one.
    pub next_cursor: Option<Cursor>,
}

impl Query {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, query: LogQuery::default(), errors: FieldErrors::new() }
    }

    /// Keeps only events of this user.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.query.user_id = Some(user_id.into());
        self
    }

    /// Keeps only events with this action.
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.query.action = Some(action.into());
        self
    }

    /// Keeps only events at or after this time.
    pub fn since(mut self, time: impl Into<Timestamp>) -> Self {
        self.query.from = Some(time.into());
        self
    }

    /// Keeps only events before this time.
    pub fn until(mut self, time: impl Into<Timestamp>) -> Self {
        self.query.to = Some(time.into());
        self
    }

    /// Keeps only events whose metadata has this value at this path, such as
    /// `cart.items`. May be called several times; all filters must match.
    ///
    /// A stored string matches if it equals the text of `value`. A stored
    /// number, `true`, `false` or `null` matches if that text can be parsed as
    /// the same value.
    pub fn metadata(mut self, path: impl AsRef<str>, value: impl fmt::Display) -> Self {
        let path = path.as_ref();
        match MetadataFilter::new(path, &value.to_string()) {
            Ok(filter) => self.query.metadata.push(filter),
            Err(error) => self.errors.push(FieldError::new(format!("metadata.{path}"), error)),
        }
        self
    }

    /// Sets the maximum number of events in a page. Defaults to 10; from 1 to
    /// 1000.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = limit;
        self
    }

    /// Sets the order of the events. Defaults to newest first.
    pub fn order(mut self, order: Order) -> Self {
        self.query.order = order;
        self
    }

    /// Starts at a page number, beginning with 1. The server limits how deep
    /// this can go. [`cursor`](Self::cursor) and [`stream`](Self::stream) cost
    /// the same at any depth.
    pub fn page(mut self, page: u64) -> Self {
        self.query.start = Start::Page(page);
        self
    }

    /// Starts after the last event of the page that returned this cursor.
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.query.start = Start::After(cursor);
        self
    }

    /// Reads one page.
    ///
    /// # Errors
    /// Returns [`ReadError::Status`] if the server responds with an error. An
    /// invalid filter has status 400, whether the client or the server rejects
    /// it. Returns another [`ReadError`] if there is no valid response.
    pub async fn fetch(&self) -> Result<Page, ReadError> {
        if !self.errors.is_empty() {
            let errors = self.errors.clone();
            let message = errors.to_string();
            let error = StatusError { status: 400, message, errors, request_id: None };
            return Err(ReadError::Status(error));
        }
        let LogsPage { data, next_cursor, .. } = self.reader.get(&self.path()).await?;
        let next_cursor = match next_cursor.map(|cursor| cursor.parse()).transpose() {
            Ok(cursor) => cursor,
            Err(error) => {
                return Err(ReadError::UnexpectedResponse(format!("nextCursor {error}")));
            }
        };
        Ok(Page { data, next_cursor })
    }

    fn path(&self) -> String {
        let mut path = "/logs".to_owned();
        for (index, (name, value)) in self.query.to_pairs().iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            let (name, value) = (encode(name), encode(value));
            // Writing to a string cannot fail.
            let _ = write!(path, "{separator}{name}={value}");
        }
        path
    }

    /// Reads all pages, each when it is needed. The stream ends after the last
    /// event or the first error. A [`limit`](Self::limit) of several hundred is
    /// more efficient than the default.
    pub fn stream(self) -> LogStream {
        LogStream { next: Some(self), events: VecDeque::new(), fetching: None }
    }

    /// Reads one event by its id, ignoring all filters. Returns `None` if it
    /// does not exist. A delivered event may take a moment until it can be read.
    ///
    /// # Errors
    /// Returns a [`ReadError`] if the server responds with an error other than
    /// 404, or if there is no valid response.
    pub async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        match self.reader.get::<LogResponse>(&format!("/logs/{id}")).await {
            Ok(found) => Ok(Some(found.data)),
            Err(ReadError::Status(error)) if error.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("query", &self.query).finish_non_exhaustive()
    }
}

fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// All events of a query, read page by page; see [`Query::stream`].
///
/// This is a [`Stream`]. [`next_event`](Self::next_event) works without a crate
/// for streams.
///
/// ```no_run
/// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::ReadError> {
/// let mut events = client.query().user("user-123").limit(500).stream();
/// while let Some(entry) = events.next_event().await {
///     println!("{}", entry?.action);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing until it is polled"]
pub struct LogStream {
    /// The query for the next page, or `None` after the last one.
    next: Option<Query>,
    events: VecDeque<LogEntry>,
    fetching: Option<BoxFuture<'static, (Query, Result<Page, ReadError>)>>,
}

impl LogStream {
    /// Returns the next event, or `None` after the last one or an error.
    pub async fn next_event(&mut self) -> Option<Result<LogEntry, ReadError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for LogStream {
    type Item = Result<LogEntry, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.events.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            if let Some(fetching) = &mut self.fetching {
                let (query, result) = match fetching.as_mut().poll(context) {
                    Poll::Ready(fetched) => fetched,
                    Poll::Pending => return Poll::Pending,
                };
                self.fetching = None;
                match result {
                    Ok(page) => {
                        self.next = page.next_cursor.map(|cursor| query.cursor(cursor));
                        self.events = page.data.into();
                    }
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            } else if let Some(query) = self.next.take() {
                self.fetching = Some(Box::pin(async move {
                    let page = query.fetch().await;
                    (query, page)
                }));
            } else {
                return Poll::Ready(None);
            }
        }
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").field("next", &self.next).finish_non_exhaustive()
    }
}
