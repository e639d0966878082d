//! The change stream of a tail that resumes, until it has reached the shared one.

use std::collections::HashSet;
use std::sync::Arc;

use bson::{doc, oid::ObjectId};
use eyego_log_core::{LogEntry, LogId, LogQuery};
use mongodb::options::ReadConcern;
use tokio::sync::OwnedSemaphorePermit;

use super::changes::{self, Change, Changes, Next};
use super::token::{self, Position};
use crate::domain::read::{PageItem as _, ReadError};
use crate::domain::tail::{BatchSize, MAX_BATCH_BYTES, TailError, matches};
use crate::infrastructure::repository::mongodb::connection::MongoConnection;
use crate::infrastructure::repository::mongodb::operation::{self, MAX_READ_TIME};

/// Number of changes that one read examines.
const MAX_CHANGES: usize = 256;

/// A change stream, and the position reached.
pub(super) struct Past {
    connection: Arc<MongoConnection>,
    filter: LogQuery,
    stream: Changes,
    position: Position,
    /// Events that a batch had no room for.
    left: Vec<(Position, LogEntry)>,
    /// The position behind `left`.
    examined: Position,
    _permit: OwnedSemaphorePermit,
}

impl Past {
    /// Opens the change stream after `position`, and reads its first changes: MongoDB
    /// reports only then whether it still has them.
    pub(super) async fn open(
        connection: &Arc<MongoConnection>,
        filter: LogQuery,
        position: Position,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, TailError> {
        let stream = changes::open(connection, Some(&position), false).await?;
        let examined = Arc::clone(&position);
        let mut past = Self {
            connection: Arc::clone(connection),
            filter,
            stream,
            position,
            left: Vec::new(),
            examined,
            _permit: permit,
        };
        past.fetch().await.map_err(|error| match error {
            TailError::Read(ReadError::Failed(_)) => TailError::InvalidToken,
            error => error,
        })?;
        Ok(past)
    }

    /// Returns the position after everything that was returned.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Returns whether everything that was examined has been returned.
    pub(super) fn is_drained(&self) -> bool {
        self.left.is_empty()
    }

    /// Returns the next matching events that still exist. There may be none.
    pub(super) async fn read(&mut self) -> Result<Vec<(Position, LogEntry)>, TailError> {
        if self.left.is_empty() {
            self.fetch().await?;
        }
        let mut size = BatchSize::default();
        let count = self.left.iter().take_while(|(_, e)| size.add(e.json_bytes())).count();
        let events: Vec<_> = self.left.drain(..count).collect();
        match (self.left.is_empty(), events.last()) {
            (false, Some((position, _))) => self.position = Arc::clone(position),
            _ => self.position = Arc::clone(&self.examined),
        }
        Ok(events)
    }

    /// Reads changes until some match.
    async fn fetch(&mut self) -> Result<(), TailError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for _ in 0..MAX_CHANGES {
            let change = match changes::next(&mut self.stream).await? {
                Next::Change(change) => change,
                Next::Idle => {
                    if let Some(token) = self.stream.resume_token() {
                        self.examined = token::position(&token).unwrap_or(self.examined.clone());
                    }
                    break;
                }
                Next::Dropped => return Err(TailError::TokenTooOld),
            };
            let Some(position) = changes::position_of(&change) else { continue };
            if let Change::Stored(Some(entry)) = changes::read(&self.connection, &change).await?
                && matches(&self.filter, &entry)
            {
                bytes += entry.json_bytes();
                events.push((Arc::clone(&position), entry));
            }
            self.examined = position;
            if bytes >= MAX_BATCH_BYTES {
                break;
            }
        }
        if !events.is_empty() {
            let existing = existing(&self.connection, &events).await?;
            events.retain(|(_, entry)| existing.contains(&entry.id));
        }
        self.left = events;
        Ok(())
    }
}

/// Returns which of the events still exist: the history also has those that were
/// removed.
async fn existing(
    connection: &MongoConnection,
    events: &[(Position, LogEntry)],
) -> Result<HashSet<LogId>, ReadError> {
    let ids: Vec<_> =
        events.iter().map(|(_, entry)| ObjectId::from_bytes(*entry.id.as_bytes())).collect();
    let collection = connection.read_from(&connection.options().collection)?;
    operation::query(async {
        let mut cursor = collection
            .find(doc! { "_id": { "$in": ids } })
            .projection(doc! { "_id": 1 })
            .read_concern(ReadConcern::majority())
            .max_time(MAX_READ_TIME)
            .await?;
        let mut existing = HashSet::new();
        while cursor.advance().await? {
            let id = cursor.current().get_object_id("_id").ok();
            existing.extend(id.map(|id| LogId::from_bytes(id.bytes())));
        }
        Ok(existing)
    })
    .await
}
