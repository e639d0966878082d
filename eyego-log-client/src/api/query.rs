//! Queries for stored events, by page. `stream` reads all pages.
//!
//! `tail`, `stats` and `export` add the other calls of a query.

pub(crate) mod stream;

use std::fmt;

use eyego_log_core::query::{Cursor, MetadataFilter, Order, Start};
use eyego_log_core::wire::{LogResponse, LogsPage};
use eyego_log_core::{FieldError, FieldErrors, LogEntry, LogId, LogQuery, Timestamp};

use crate::api::caller::Caller;
use crate::api::path;
use crate::model::errors::{RequestError, StatusError};

/// A query for stored events. An event must match all filters.
///
/// ```no_run
/// use eyego_log_client::{Client, Order};
///
/// # async fn run(client: Client) -> Result<(), eyego_log_client::RequestError> {
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
    caller: Caller,
    query: LogQuery,
    errors: FieldErrors,
    /// Whether these were set, although perhaps to their default.
    has_limit: bool,
    has_order: bool,
    has_page: bool,
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
    pub(crate) fn new(caller: Caller) -> Self {
        let (query, errors) = (LogQuery::default(), FieldErrors::new());
        Self { caller, query, errors, has_limit: false, has_order: false, has_page: false }
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
    /// 1000. A page of large events ends earlier, at 8 MiB.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = limit;
        self.has_limit = true;
        self
    }

    /// Sets the order of the events. Defaults to newest first.
    pub fn order(mut self, order: Order) -> Self {
        self.query.order = order;
        self.has_order = true;
        self
    }

    /// Starts at a page number, beginning with 1: after that many times
    /// [`limit`](Self::limit) events. The server limits how deep this can go. A page
    /// that ended early, because it has 8 MiB, is followed by a gap: the number of the
    /// next page skips the events that did not fit. [`cursor`](Self::cursor) and
    /// [`stream`](Self::stream) skip nothing, and cost the same at any depth.
    pub fn page(mut self, page: u64) -> Self {
        self.query.start = Start::Page(page);
        self.has_page = true;
        self
    }

    /// Starts after the last event of the page that returned this cursor.
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.query.start = Start::After(cursor);
        self
    }

    /// Reads one page. An API key needs the scope `read`, as for all other calls
    /// of a query. Continue with the cursor of the page,
    /// [`next_cursor`](Page::next_cursor): a page may have fewer events than its limit
    /// although it is not the last one.
    ///
    /// A query and its streams do not keep the client alive: after a shutdown, or when
    /// the last [`Client`](crate::Client) is dropped, they return
    /// [`RequestError::Closed`].
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] if the server responds with an error. An
    /// invalid filter has status 400, whether the client or the server rejects
    /// it. Returns another [`RequestError`] if there is no valid response.
    pub async fn fetch(&self) -> Result<Page, RequestError> {
        self.check()?;
        let path = path::with_query("/logs", &self.query.to_pairs());
        let LogsPage { data, next_cursor, .. } = self.caller.get(&path).await?;
        Ok(Page { data, next_cursor: path::next_cursor(next_cursor)? })
    }

    /// Adds an error, so that the query is not sent.
    pub(super) fn reject(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    /// Returns the errors of filters that were found to be invalid.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let (message, errors) = (self.errors.to_string(), self.errors.clone());
        Err(RequestError::Status(StatusError::rejected(400, message, errors)))
    }

    /// Returns the parameters for a route without pages. A limit, page, cursor or
    /// order that was set is among them, also if it is the default, so that the
    /// server rejects what its route does not have.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        let mut pairs = self.query.to_pairs();
        pairs.retain(|(name, _)| name != "limit" || self.has_limit);
        let mut add = |name: &str, value: &str| pairs.push((name.to_owned(), value.to_owned()));
        // `to_pairs` leaves out the defaults.
        if self.has_page && matches!(self.query.start, Start::Page(1)) {
            add("page", "1");
        }
        if self.has_order && self.query.order == Order::Descending {
            add("order", "desc");
        }
        pairs
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Reads one event by its id, ignoring all filters. Returns `None` if it
    /// does not exist. A delivered event may take a moment until it can be read.
    ///
    /// # Errors
    /// Returns a [`RequestError`] if the server responds with an error other than
    /// 404, or if there is no valid response.
    pub async fn get(&self, id: LogId) -> Result<Option<LogEntry>, RequestError> {
        let found = self.caller.find::<LogResponse>(&format!("/logs/{id}")).await?;
        Ok(found.map(|found| found.data))
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("query", &self.query).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_sent_to_routes_without_pages_although_it_is_the_default() {
        let names = |query: Query| {
            let parameters = query.parameters();
            parameters.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let query = || Query::new(Caller::disabled());
        assert_eq!(names(query().user("ada")), ["userId"]);
        assert_eq!(names(query().limit(10)), ["limit"]);
        assert_eq!(names(query().limit(100)), ["limit"]);
        assert_eq!(names(query().page(1)), ["page"]);
        assert_eq!(names(query().order(Order::Descending)), ["order"]);
        assert_eq!(names(query().order(Order::Ascending)), ["order"]);
    }
}
