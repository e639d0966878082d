//! Erasures: all events of a user are removed.

use std::time::{Duration, Instant};

use eyego_log_core::query::Cursor;
use eyego_log_core::{FieldError, LogId, Timestamp};
use http::Method;
use serde::Deserialize;

use crate::api::client::{Client, deadline_after};
use crate::api::list::ListQuery;
use crate::api::path;
use crate::model::errors::{RequestError, StatusError};
use crate::transport::Bytes;
use crate::transport::describe::rounded;

/// The pauses before an erasure is read again. They double.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The removal of all events of a user that were received before a time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Erasure {
    /// The id of the erasure.
    pub id: LogId,
    /// The user.
    pub user_id: String,
    /// Events received before this time are removed.
    pub requested_at: Timestamp,
    /// How far it is.
    pub state: ErasureState,
    /// What was removed so far.
    pub removed: Removed,
    /// When it was done.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
}

/// How far an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ErasureState {
    /// Events are still being removed.
    Running,
    /// All of them are removed, and none can come back.
    Done,
}

/// The number of events that an erasure removed, by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Removed {
    /// Stored events.
    pub store: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// A query for erasures; see [`Client::erasures`](crate::Client::erasures).
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched"]
pub struct ErasureQuery {
    list: ListQuery,
}

/// One page of erasures.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErasurePage {
    /// The erasures, the latest request first.
    pub data: Vec<Erasure>,
    /// The position of the next page, or `None` if this is the last one.
    pub next_cursor: Option<Cursor>,
}

#[derive(Deserialize)]
struct ErasureResponse {
    data: Erasure,
}

impl Client {
    /// Removes every event of a user that the server received before now. Returns
    /// once the request is durable; the removal itself continues in the server for
    /// more than a minute, because it is repeated.
    /// Requesting it again is safe. An API key needs the scope `erase`.
    ///
    /// Events of the user that this client has not delivered yet are received later
    /// and stay. [Flush](Client::flush) before.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] with status 400 if `user_id` is empty, or is
    /// `.` or `..`, which no URL can contain: erase such a user with
    /// `eyego-log-server erase`. Returns it with 503 if the store is unavailable, and
    /// another [`RequestError`] if there is no valid response.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use eyego_log_client::ErasureState;
    ///
    /// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::RequestError> {
    /// let receipt = client.erase_user("user-123").await?;
    /// let erasure = client.wait_for_erasure(receipt.id, Duration::from_secs(300)).await?;
    /// if erasure.state == ErasureState::Done {
    ///     println!("{} events were removed", erasure.removed.store);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn erase_user(&self, user_id: impl AsRef<str>) -> Result<Erasure, RequestError> {
        let user_id = user_id.as_ref();
        let problem = match user_id {
            "" => Some("must be a non-empty string"),
            "." | ".." => {
                Some("must not be `.` or `..`: erase this user with the server's `erase`")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            let error = FieldError::new("userId", problem);
            let message = error.message.clone();
            let error = StatusError::rejected(400, message, error.into());
            return Err(RequestError::Status(error));
        }
        let path = format!("/users/{}/logs", path::encode(user_id));
        let response = self.caller().call(Method::DELETE, &path, Bytes::new(), Duration::ZERO);
        response.await.map(|ErasureResponse { data }| data)
    }

    /// Reads one erasure. Returns `None` if it does not exist. An API key needs the
    /// scope `erase`.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] if the server responds with an error other
    /// than 404, or another [`RequestError`] if there is no valid response.
    pub async fn erasure(&self, id: LogId) -> Result<Option<Erasure>, RequestError> {
        let found = self.caller().find::<ErasureResponse>(&format!("/erasures/{id}")).await?;
        Ok(found.map(|found| found.data))
    }

    /// Waits until an erasure is done, at most for `timeout`, and returns it. It is
    /// still [running](ErasureState::Running) if the timeout has passed. With a timeout
    /// of zero, it is read once, and that may take as long as any request. An API key
    /// needs the scope `erase`.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] with status 404 if the erasure does not
    /// exist. An error that a later attempt may resolve is returned only if it was the
    /// last result when the timeout passes, [`RequestError::NoResponse`] also if there
    /// was no result.
    pub async fn wait_for_erasure(
        &self,
        id: LogId,
        timeout: Duration,
    ) -> Result<Erasure, RequestError> {
        let deadline = deadline_after(timeout);
        let path = format!("/erasures/{id}");
        if timeout.is_zero() {
            return Ok(self.caller().get::<ErasureResponse>(&path).await?.data);
        }
        let message = format!("the erasure could not be read within {}", rounded(timeout));
        let mut last = Err(RequestError::NoResponse(message));
        let mut pause = FIRST_PAUSE;
        loop {
            let read = self.caller().get::<ErasureResponse>(&path);
            let Some(result) = self.caller().within(deadline, read).await else { return last };
            last = result.map(|found| found.data);
            let is_final = match &last {
                Ok(erasure) => erasure.state == ErasureState::Done,
                Err(error) => !error.is_retryable(),
            };
            let now = Instant::now();
            if is_final || now >= deadline {
                return last;
            }
            self.caller().sleep_until(deadline.min(now + pause)).await;
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }

    /// Creates a query for the erasures, the latest request first.
    pub fn erasures(&self) -> ErasureQuery {
        ErasureQuery { list: ListQuery::new(self.caller(), "/erasures") }
    }
}

impl ErasureQuery {
    /// Sets the maximum number of erasures in a page. Defaults to 10; from 1 to
    /// 1000.
    pub fn limit(self, limit: u32) -> Self {
        self.set("limit", limit)
    }

    /// Starts after the last erasure of the page that returned this cursor.
    pub fn cursor(self, cursor: Cursor) -> Self {
        self.set("cursor", cursor)
    }

    fn set(self, name: &'static str, value: impl std::fmt::Display) -> Self {
        Self { list: self.list.set(name, value) }
    }

    /// Reads one page. An API key needs the scope `erase`.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] if the server responds with an error, or
    /// another [`RequestError`] if there is no valid response.
    pub async fn fetch(&self) -> Result<ErasurePage, RequestError> {
        let (data, next_cursor) = self.list.fetch().await?;
        Ok(ErasurePage { data, next_cursor })
    }
}
