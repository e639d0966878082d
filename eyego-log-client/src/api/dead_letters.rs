//! Dead letters: records that the server could not store. They can be listed, read
//! and stored again.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, Timestamp};
use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::api::client::Client;
use crate::api::list::ListQuery;
use crate::model::errors::RequestError;
use crate::transport::Bytes;

/// How long the server replays within one call.
const REPLAY_TIME: Duration = Duration::from_secs(20);

/// A query for dead letters; see
/// [`Client::dead_letters`](crate::Client::dead_letters). A dead letter must match
/// all filters.
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched"]
pub struct DeadLetterQuery {
    list: ListQuery,
}

/// One page of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterPage {
    /// The dead letters, the latest failure first.
    pub data: Vec<DeadLetter>,
    /// The position of the next page, or `None` if this is the last one.
    pub next_cursor: Option<Cursor>,
}

/// A record that the server could not store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeadLetter {
    /// The id of the event, or one derived from the record's position if it has no
    /// readable id.
    pub id: LogId,
    /// The reason as a code, such as `id_conflict`.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// How often the server tried to store it.
    pub attempts: u32,
    /// The user id, if it can be read.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record.
    pub offset: i64,
    /// When the queue accepted the record.
    pub queued_at: Timestamp,
    /// When the server last tried to store it.
    pub failed_at: Timestamp,
    /// The size of the record in bytes, if only its beginning was kept. It cannot
    /// be replayed then.
    #[serde(default)]
    pub cut_from: Option<u64>,
    /// The bytes of the record. Only
    /// [`Client::dead_letter`](crate::Client::dead_letter) reads them.
    #[serde(skip)]
    pub raw: Option<Vec<u8>>,
}

/// Selects the dead letters to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replay {
    /// The one with this id.
    Id(LogId),
    /// Those with this code.
    Code(String),
    /// All.
    All,
}

/// The result of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Replayed {
    /// Dead letters that are stored now.
    pub replayed: u64,
    /// Dead letters that failed again.
    pub failed: u64,
    /// Dead letters of the selection that are left, including those that failed.
    pub remaining: u64,
}

#[derive(Deserialize)]
struct GetResponse {
    data: WithRaw,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithRaw {
    #[serde(flatten)]
    dead_letter: DeadLetter,
    /// The bytes, or a part of them, if they are UTF-8.
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    raw_base64: Option<String>,
    /// Where the next part begins.
    #[serde(default)]
    next_offset: Option<u64>,
}

impl WithRaw {
    fn into_bytes(self) -> Result<Vec<u8>, RequestError> {
        match (self.raw, self.raw_base64) {
            (Some(text), _) => Ok(text.into_bytes()),
            (None, Some(encoded)) => BASE64_STANDARD.decode(encoded).map_err(|error| {
                RequestError::UnexpectedResponse(format!("rawBase64 is not valid: {error}"))
            }),
            (None, None) => Ok(Vec::new()),
        }
    }
}

impl Client {
    /// Creates a query for dead letters.
    ///
    /// ```no_run
    /// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::RequestError> {
    /// let mut query = client.dead_letters().code("id_conflict").limit(100);
    /// loop {
    ///     let page = query.fetch().await?;
    ///     for dead_letter in &page.data {
    ///         println!("{} {}", dead_letter.id, dead_letter.message);
    ///     }
    ///     let Some(next) = page.next_cursor else { break };
    ///     query = query.cursor(next);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letters(&self) -> DeadLetterQuery {
        DeadLetterQuery { list: ListQuery::new(self.caller(), "/dead-letters") }
    }

    /// Reads one dead letter with all bytes of its record, in several requests if
    /// there are more than 16 MiB. Returns `None` if it does not exist. An API key
    /// needs the scope `admin`.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] if the server responds with an error other
    /// than 404, or another [`RequestError`] if there is no valid response.
    pub async fn dead_letter(&self, id: LogId) -> Result<Option<DeadLetter>, RequestError> {
        let path = format!("/dead-letters/{id}");
        let Some(GetResponse { mut data }) = self.caller().find(&path).await? else {
            return Ok(None);
        };
        let mut dead_letter = data.dead_letter.clone();
        let mut bytes = Vec::new();
        loop {
            let next = data.next_offset;
            bytes.append(&mut data.into_bytes()?);
            let Some(offset) = next else { break };
            // The record may have been replayed meanwhile.
            let next = self.caller().find(&format!("{path}?offset={offset}")).await?;
            let Some(GetResponse { data: part }) = next else { return Ok(None) };
            data = part;
        }
        dead_letter.raw = Some(bytes);
        Ok(Some(dead_letter))
    }

    /// Stores dead letters from their kept bytes, under the ids of their events, and
    /// removes those that are stored. An API key needs the scope `admin`.
    ///
    /// One call processes up to 10,000 dead letters or 20 s. Repeat it while
    /// [`Replayed::remaining`] falls. It may take 20 s longer than the
    /// [`request_timeout`](crate::ClientBuilder::request_timeout).
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] with status 404 if there is no dead letter
    /// with the id, and with 409 if only the beginning of its record was kept.
    /// Returns another [`RequestError`] if there is no valid response; some dead
    /// letters may have been replayed then, and replaying again is safe.
    ///
    /// ```no_run
    /// use eyego_log_client::Replay;
    ///
    /// # async fn run(client: eyego_log_client::Client) -> Result<(), eyego_log_client::RequestError> {
    /// let mut left = u64::MAX;
    /// loop {
    ///     let result = client.replay_dead_letters(Replay::All).await?;
    ///     if result.remaining == 0 || result.remaining >= left {
    ///         break;
    ///     }
    ///     left = result.remaining;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn replay_dead_letters(&self, selection: Replay) -> Result<Replayed, RequestError> {
        let body = match selection {
            Replay::Id(id) => json!({"id": id}),
            Replay::Code(code) => json!({"code": code}),
            Replay::All => json!({"all": true}),
        };
        let body = Bytes::from(body.to_string());
        self.caller().call(Method::POST, "/dead-letters/replay", body, REPLAY_TIME).await
    }
}

impl DeadLetterQuery {
    /// Keeps only dead letters with this code.
    pub fn code(self, code: impl Into<String>) -> Self {
        self.set("code", code.into())
    }

    /// Keeps only dead letters whose last failure was at or after this time.
    pub fn since(self, time: impl Into<Timestamp>) -> Self {
        self.set("from", time.into())
    }

    /// Keeps only dead letters whose last failure was before this time.
    pub fn until(self, time: impl Into<Timestamp>) -> Self {
        self.set("to", time.into())
    }

    /// Sets the maximum number of dead letters in a page. Defaults to 10; from 1 to
    /// 1000.
    pub fn limit(self, limit: u32) -> Self {
        self.set("limit", limit)
    }

    /// Starts after the last dead letter of the page that returned this cursor.
    pub fn cursor(self, cursor: Cursor) -> Self {
        self.set("cursor", cursor)
    }

    fn set(self, name: &'static str, value: impl std::fmt::Display) -> Self {
        Self { list: self.list.set(name, value) }
    }

    /// Reads one page, without the bytes of the records. An API key needs the scope
    /// `admin`.
    ///
    /// # Errors
    /// Returns [`RequestError::Status`] if the server responds with an error, such
    /// as 400 for an invalid filter, or another [`RequestError`] if there is no
    /// valid response.
    pub async fn fetch(&self) -> Result<DeadLetterPage, RequestError> {
        let (data, next_cursor) = self.list.fetch().await?;
        Ok(DeadLetterPage { data, next_cursor })
    }
}
