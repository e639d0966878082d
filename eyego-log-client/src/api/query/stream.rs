//! All events of a query as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use eyego_log_core::LogEntry;
use futures_core::Stream;

use crate::api::query::{Page, Query};
use crate::model::errors::RequestError;
use crate::transport::BoxFuture;

/// All events of a query, read page by page; see [`Query::stream`].
///
/// This is a [`Stream`]. [`next_event`](Self::next_event) works without a crate
/// for streams.
///
/// ```no_run
/// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::RequestError> {
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
    fetching: Option<BoxFuture<'static, (Query, Result<Page, RequestError>)>>,
}

impl Query {
    /// Reads all pages, each when it is needed. The stream ends after the last
    /// event or the first error. A [`limit`](Self::limit) of several hundred is
    /// more efficient than the default.
    pub fn stream(self) -> LogStream {
        LogStream::new(self)
    }
}

impl LogStream {
    fn new(query: Query) -> Self {
        Self { next: Some(query), events: VecDeque::new(), fetching: None }
    }

    /// Returns the next event, or `None` after the last one or an error.
    pub async fn next_event(&mut self) -> Option<Result<LogEntry, RequestError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for LogStream {
    type Item = Result<LogEntry, RequestError>;

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
