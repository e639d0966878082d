//! Reading: the typed query, pages, the stream over all of them.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use eyego_log_core::wire::{ErrorResponse, LogResponse, LogsPage};
use eyego_log_core::{FieldError, FieldErrors, LogEntry, LogId, LogQuery, Timestamp};
use futures_core::Stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::error::{ReadError, StatusError};
use crate::shared::{Job, Shared};
use crate::transport::{BoxFuture, Method, Request, Response};
use crate::verdict::{describe, whole_story};
use crate::worker::authorized;

/// What stands in a query as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A query for logs, newest first; each filter narrows it.
///
/// ```no_run
/// use eyego_log_client::{Client, Order};
///
/// # async fn run(client: Client) -> Result<(), eyego_log_client::ReadError> {
/// let page = client
///     .logs()
///     .user("user-123")
///     .metadata("cart.items", 2)
///     .order(Order::Ascending)
///     .limit(20)
///     .fetch()
///     .await?;
/// for log in &page.data {
///     println!("{} {} {}", log.timestamp, log.action, log.metadata.as_json());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a query does nothing until it is fetched"]
pub struct Logs {
    shared: Arc<Shared>,
    query: LogQuery,
    faults: FieldErrors,
}

/// One page of logs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The logs, in the order of the query.
    pub data: Vec<LogEntry>,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<Cursor>,
}

impl Logs {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, query: LogQuery::default(), faults: FieldErrors::new() }
    }

    /// Only this user's.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.query.user_id = Some(user_id.into());
        self
    }

    /// Only this action's.
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.query.action = Some(action.into());
        self
    }

    /// Only from this time on.
    pub fn from(mut self, from: impl Into<Timestamp>) -> Self {
        self.query.from = Some(from.into());
        self
    }

    /// Only before this time.
    pub fn to(mut self, to: impl Into<Timestamp>) -> Self {
        self.query.to = Some(to.into());
        self
    }

    /// Only those with this value at this path of their metadata, such as
    /// `cart.items`; it may be called several times. The value is compared as
    /// text, and as the number, `true`, `false` or `null` that the text reads
    /// as.
    pub fn metadata(mut self, path: impl AsRef<str>, value: impl fmt::Display) -> Self {
        let path = path.as_ref();
        match MetadataFilter::new(path, &value.to_string()) {
            Ok(filter) => self.query.metadata.push(filter),
            Err(fault) => self.faults.push(FieldError::new(format!("metadata.{path}"), fault)),
        }
        self
    }

    /// Logs in a page. Default 10; 1 to 1000.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = limit;
        self
    }

    /// Newest first (the default) or oldest first.
    pub fn order(mut self, order: Order) -> Self {
        self.query.order = order;
        self
    }

    /// Begins at this page, the first of which is 1; for the first few. What
    /// lies deeper is reached by [`cursor`](Self::cursor) or
    /// [`stream`](Self::stream), at the same cost at any depth.
    pub fn page(mut self, page: u64) -> Self {
        self.query.start = Start::Page(page);
        self
    }

    /// Begins behind the last log of the page that gave this cursor.
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.query.start = Start::After(cursor);
        self
    }

    /// Reads one page.
    ///
    /// # Errors
    /// No answer, or one that is a failure; a filter that makes no sense is a
    /// failure with status 400, whether found here or there.
    pub async fn fetch(&self) -> Result<Page, ReadError> {
        if !self.faults.is_empty() {
            let errors = self.faults.clone();
            let message = errors.to_string();
            let error = StatusError { status: 400, message, errors, request_id: None };
            return Err(ReadError::Status(error));
        }
        let mut path = "/logs".to_owned();
        for (index, (name, value)) in self.query.to_pairs().iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            let (name, value) = (encode(name), encode(value));
            // Writing into a string cannot fail.
            let _ = write!(path, "{separator}{name}={value}");
        }
        let LogsPage { data, next_cursor, .. } = get(&self.shared, &path).await?;
        let next_cursor = match next_cursor.map(|cursor| cursor.parse()).transpose() {
            Ok(cursor) => cursor,
            Err(error) => return Err(ReadError::Nonsense(format!("nextCursor {error}"))),
        };
        Ok(Page { data, next_cursor })
    }

    /// Reads all pages, one after the other, as they are asked for. It ends
    /// after the last log or the first error. Take a [`limit`](Self::limit)
    /// of some hundreds.
    pub fn stream(self) -> LogStream {
        LogStream { next: Some(self), read: VecDeque::new(), reading: None }
    }

    /// Reads one log by its id; the filters do not count. `None` where there
    /// is none (yet: what was delivered is stored a moment later).
    ///
    /// # Errors
    /// No answer, or one that is another failure than 404.
    pub async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        match get::<LogResponse>(&self.shared, &format!("/logs/{id}")).await {
            Ok(answer) => Ok(Some(answer.data)),
            Err(ReadError::Status(error)) if error.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("query", &self.query).finish_non_exhaustive()
    }
}

fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

async fn get<T: DeserializeOwned>(shared: &Shared, path: &str) -> Result<T, ReadError> {
    let url = format!("{}{path}", shared.config.base_url);
    let (answer, wait) = oneshot::channel();
    let request = authorized(shared, Request::new(Method::Get, url));
    shared.submit(Job { request, answer });
    let response = wait.await.map_err(|_| ReadError::Closed)?;
    let response = response.map_err(|error| ReadError::NoAnswer(whole_story(&error)))?;
    if !(200..300).contains(&response.status) {
        return Err(failure(response));
    }
    serde_json::from_slice(&response.body)
        .map_err(|error| ReadError::Nonsense(format!("{} ({error})", describe(&response))))
}

fn failure(response: Response) -> ReadError {
    match serde_json::from_slice(&response.body) {
        Ok(ErrorResponse { message, errors, .. }) => {
            let Response { status, request_id, .. } = response;
            ReadError::Status(StatusError { status, message, errors, request_id })
        }
        Err(_) if response.status >= 400 => {
            let message = describe(&response);
            let Response { status, request_id, .. } = response;
            let errors = FieldErrors::new();
            ReadError::Status(StatusError { status, message, errors, request_id })
        }
        Err(_) => ReadError::Nonsense(describe(&response)),
    }
}

/// All logs of a query, page after page; see [`Logs::stream`].
///
/// It is a [`Stream`]; [`next`](Self::next) is there for who has no crate for
/// streams.
///
/// ```no_run
/// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::ReadError> {
/// let mut logs = client.logs().user("user-123").limit(500).stream();
/// while let Some(log) = logs.next().await {
///     println!("{}", log?.action);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing until it is read"]
pub struct LogStream {
    /// The query of the next page; `None` behind the last.
    next: Option<Logs>,
    read: VecDeque<LogEntry>,
    reading: Option<BoxFuture<'static, (Logs, Result<Page, ReadError>)>>,
}

impl LogStream {
    /// The next log; `None` behind the last one or an error.
    pub async fn next(&mut self) -> Option<Result<LogEntry, ReadError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for LogStream {
    type Item = Result<LogEntry, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(log) = self.read.pop_front() {
                return Poll::Ready(Some(Ok(log)));
            }
            if let Some(reading) = &mut self.reading {
                let (logs, result) = match reading.as_mut().poll(context) {
                    Poll::Ready(read) => read,
                    Poll::Pending => return Poll::Pending,
                };
                self.reading = None;
                match result {
                    Ok(page) => {
                        self.next = page.next_cursor.map(|cursor| logs.cursor(cursor));
                        self.read = page.data.into();
                    }
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            } else if let Some(logs) = self.next.take() {
                self.reading = Some(Box::pin(async move {
                    let page = logs.fetch().await;
                    (logs, page)
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
