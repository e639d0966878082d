//! Tails of the MongoDB store, from change streams (ADR 0038).
//!
//! All tails share one change stream. A tail that resumes from before the shared stream
//! has one of its own until it has reached it.
//!
//! | file | contents |
//! |---|---|
//! | `changes` | opening change streams, and reading what they return |
//! | `shared` | the task that reads the shared change stream |
//! | `pending` | what it has read and tails have not been shown |
//! | `past` | the change stream of a tail that resumes |
//! | `token` | tokens |

mod changes;
mod past;
mod pending;
mod shared;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogQuery};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use self::past::Past;
use self::token::{CollectionTag, Position, StreamTag};
use super::connection::MongoConnection;
use crate::domain::health::PartState;
use crate::domain::read::ReadError;
use crate::domain::tail::{LogTail, Tail, TailBatch, TailError, TailedEvent};
use crate::infrastructure::repository::feed::{Feed, Subscription};

/// Maximum number of tails that resume at the same time.
const MAX_RESUMING: usize = 8;

/// Maximum time that a tail waits until the shared change stream is open.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Maximum time that a tail waits for others that resume.
const MAX_RESUME_WAIT: Duration = Duration::from_secs(30);

/// Follows the log entries in MongoDB.
pub struct MongoTail {
    connection: Arc<MongoConnection>,
    /// Reads the shared change stream, apart from the threads that serve requests.
    runtime: Handle,
    shared: Mutex<Option<Shared>>,
    /// The tag of tokens from before the collection exists.
    provisional: CollectionTag,
    resuming: Arc<Semaphore>,
}

/// What the shared change stream returned last.
struct Shared {
    feed: Arc<Feed<Position>>,
    tag: Arc<StreamTag>,
}

impl fmt::Debug for MongoTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoTail").finish_non_exhaustive()
    }
}

impl MongoTail {
    /// Creates the tail of this connection. Change streams are opened when they are
    /// needed.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    #[must_use]
    pub fn new(connection: Arc<MongoConnection>) -> Self {
        let resuming = Arc::new(Semaphore::new(MAX_RESUMING));
        Self {
            connection,
            runtime: Handle::current(),
            shared: Mutex::default(),
            provisional: CollectionTag::provisional(),
            resuming,
        }
    }

    /// Subscribes to the shared change stream. Opens it if it is not open.
    async fn subscribe(
        &self,
        filter: &LogQuery,
    ) -> Result<(Subscription<Position>, Arc<StreamTag>), TailError> {
        if let PartState::Down(reason) = self.connection.health().state {
            return Err(ReadError::Unavailable(reason).into());
        }
        let late =
            |_| ReadError::Unavailable("the change stream was not opened in time".to_owned());
        let mut shared = timeout(MAX_WAIT, self.shared.lock()).await.map_err(late)?;
        if let Some(Shared { feed, tag }) = &*shared
            && let Some(subscription) = feed.subscribe(filter)
        {
            return Ok((subscription, Arc::clone(tag)));
        }
        let (stream, position) = changes::open_at_end(&self.connection).await?;
        let tag = Arc::new(StreamTag::new(self.provisional));
        tag.update(&self.connection).await?;
        let feed = Arc::new(Feed::new(position));
        let closed = || ReadError::Unavailable("the change stream is closed".to_owned());
        let subscription = feed.subscribe(filter).ok_or_else(closed)?;
        let connection = Arc::clone(&self.connection);
        self.runtime.spawn(shared::run(connection, Arc::clone(&feed), Arc::clone(&tag), stream));
        *shared = Some(Shared { feed, tag: Arc::clone(&tag) });
        Ok((subscription, tag))
    }
}

#[async_trait]
impl LogTail for MongoTail {
    async fn follow(
        &self,
        filter: &LogQuery,
        after: Option<&str>,
    ) -> Result<Box<dyn Tail>, TailError> {
        // The subscription comes first, so that nothing is missing between a resumed
        // stream and the shared one.
        let (mut live, tag) = self.subscribe(filter).await?;
        let mut past = None;
        if let Some(token) = after {
            let position = tag.parse(token).ok_or(TailError::InvalidToken)?;
            if token::is_in_the_future(&position, &live.position()) {
                return Err(TailError::InvalidToken);
            }
            if !live.seek(&position) {
                let late = ReadError::Overloaded("the limit of tails that resume is reached");
                let permit = timeout(MAX_RESUME_WAIT, Arc::clone(&self.resuming).acquire_owned());
                let permit = permit.await.ok().and_then(Result::ok).ok_or(late)?;
                let filter = filter.clone();
                let resumed = Past::open(&self.connection, filter, position, permit).await?;
                past = Some(resumed);
            }
        }
        Ok(Box::new(Following { live, tag, past }))
    }
}

/// A tail.
struct Following {
    live: Subscription<Position>,
    tag: Arc<StreamTag>,
    /// The stream to read until the shared one has all that follows.
    past: Option<Past>,
}

#[async_trait]
impl Tail for Following {
    async fn next(&mut self) -> Result<TailBatch, TailError> {
        let Some(past) = &mut self.past else { return Ok(self.live.next().await?) };
        let events = past.read().await?;
        if past.is_drained() && self.live.seek(past.position()) {
            self.past = None;
        }
        let tag = self.tag.current();
        let event = |(position, entry): (Position, LogEntry)| {
            Arc::new(TailedEvent::new(tag.token(&position), entry))
        };
        Ok(TailBatch { skipped: 0, events: events.into_iter().map(event).collect() })
    }

    fn token(&self) -> String {
        let tag = self.tag.current();
        match &self.past {
            Some(past) => tag.token(past.position()),
            None => tag.token(&self.live.position()),
        }
    }
}
