//! The stored events with which a tail starts.
//!
//! They are one page of the list, which is read after the tail has its first position:
//! what is stored after that position is on the tail, however often it is
//! interrupted. The page arrives as a whole, so no interruption falls into it.

use std::fmt;
use std::task::{Context, Poll, ready};
use std::vec;

use eyego_log_core::query::Order;
use eyego_log_core::{LogEntry, LogId};

use crate::api::query::{Page, Query};
use crate::model::errors::RequestError;
use crate::transport::BoxFuture;

pub(super) struct Backlog {
    query: Query,
    state: State,
    /// The events of the page that the tail may contain too. Sorted.
    ids: Vec<LogId>,
}

enum State {
    Wanted,
    Loading(BoxFuture<'static, Result<Page, RequestError>>),
    Loaded(vec::IntoIter<LogEntry>),
}

impl Backlog {
    /// Up to this many of the latest events that match the filters of the query.
    pub(super) fn new(query: &Query, events: u32) -> Self {
        let query = query.clone().limit(events).order(Order::Descending);
        Self { query, state: State::Wanted, ids: Vec::new() }
    }

    /// Returns whether all events were returned.
    pub(super) fn is_done(&self) -> bool {
        matches!(&self.state, State::Loaded(entries) if entries.len() == 0)
    }

    /// Returns the next event, the latest last. After an error, the page is read again.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<LogEntry>, RequestError>> {
        loop {
            match &mut self.state {
                State::Wanted => {
                    let query = self.query.clone();
                    self.state = State::Loading(Box::pin(async move { query.fetch().await }));
                }
                State::Loading(page) => match ready!(page.as_mut().poll(context)) {
                    Ok(Page { mut data, .. }) => {
                        data.reverse();
                        self.ids = data.iter().map(|entry| entry.id).collect();
                        self.ids.sort_unstable();
                        self.state = State::Loaded(data.into_iter());
                    }
                    Err(error) => {
                        self.state = State::Wanted;
                        return Poll::Ready(Err(error));
                    }
                },
                State::Loaded(entries) => return Poll::Ready(Ok(entries.next())),
            }
        }
    }

    /// Returns whether an event of the tail was in the page. An event that is removed
    /// and stored again is a new one, so this is true once.
    pub(super) fn take(&mut self, id: LogId) -> bool {
        self.ids.binary_search(&id).map(|index| self.ids.remove(index)).is_ok()
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}
