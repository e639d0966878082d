//! The task that reads the change stream which all tails share.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::changes::{self, Change, Changes, Next};
use super::pending::Pending;
use super::token::{self, Position, StreamTag};
use crate::domain::read::ReadError;
use crate::domain::tail::TailError;
use crate::infrastructure::repository::feed::Feed;
use crate::infrastructure::repository::mongodb::connection::MongoConnection;

/// Time in which changes are collected before tails are woken.
const LINGER: Duration = Duration::from_millis(10);

/// Interval at which tails receive a new position although nothing was stored.
const POSITION_INTERVAL: Duration = Duration::from_secs(10);

/// Pause before the change stream is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Reads the change stream into `feed`, until no tail is open or the collection is dropped.
/// After an outage it continues from its position.
pub(super) async fn run(
    connection: Arc<MongoConnection>,
    feed: Arc<Feed<Position>>,
    tag: Arc<StreamTag>,
    stream: Changes,
) {
    let mut stopped = connection.stopped();
    let error = tokio::select! {
        result = follow(&connection, &feed, &tag, stream) => result,
        _ = stopped.wait_for(|stopped| *stopped) => {
            Err(ReadError::Unavailable("MongoDB is closed".to_owned()).into())
        }
    };
    if let Err(error) = error {
        tracing::warn!(%error, "tails have ended");
        feed.close(error.to_string());
    }
}

async fn follow(
    connection: &MongoConnection,
    feed: &Feed<Position>,
    tag: &StreamTag,
    mut stream: Changes,
) -> Result<(), TailError> {
    loop {
        match read(connection, feed, tag, &mut stream).await {
            Ok(()) => return Ok(()),
            Err(TailError::Read(ReadError::Unavailable(reason))) => {
                tracing::info!(reason, "the change stream broke and is opened again");
            }
            Err(error) => return Err(error),
        }
        stream = loop {
            if feed.close_if_unused() {
                return Ok(());
            }
            sleep(PAUSE).await;
            match changes::open(connection, Some(&feed.end()), true).await {
                Ok(stream) => break stream,
                Err(TailError::Read(ReadError::Unavailable(_))) => {}
                Err(error) => return Err(error),
            }
        };
    }
}

/// Reads until no tail is open. After an error, what tails have not been shown is read
/// again from the end of the feed.
async fn read(
    connection: &MongoConnection,
    feed: &Feed<Position>,
    tag: &StreamTag,
    stream: &mut Changes,
) -> Result<(), TailError> {
    let mut pending = Pending::default();
    // When the first change was added that tails have not been woken for.
    let mut waiting: Option<Instant> = None;
    let mut notified = Instant::now();
    loop {
        let next = {
            let mut next = pin!(changes::next(stream));
            loop {
                let left = waiting.map_or(LINGER, |since| LINGER.saturating_sub(since.elapsed()));
                tokio::select! {
                    biased;
                    next = &mut next => break next?,
                    () = sleep(left), if waiting.is_some() => {
                        (waiting, notified) = (None, Instant::now());
                        pending.apply(feed, tag.current());
                        feed.notify();
                    }
                }
            }
        };
        // The collection can have been created since.
        tag.update(connection).await?;
        match next {
            Next::Change(change) => {
                let Some(position) = changes::position_of(&change) else { continue };
                match changes::read(connection, &change).await? {
                    Change::Stored(Some(entry)) => pending.store(position, entry),
                    Change::Stored(None) => pending.reach(position),
                    Change::Removed(id) => pending.remove(position, id),
                }
                waiting.get_or_insert_with(Instant::now);
            }
            Next::Dropped => return Err(changes::dropped().into()),
            Next::Idle => {
                if let Some(end) = stream.resume_token().as_ref().and_then(token::position) {
                    pending.reach(end);
                }
                pending.apply(feed, tag.current());
                if notified.elapsed() >= POSITION_INTERVAL {
                    waiting.get_or_insert_with(Instant::now);
                }
            }
        }
        if pending.is_full() || waiting.is_some_and(|since| since.elapsed() >= LINGER) {
            (waiting, notified) = (None, Instant::now());
            pending.apply(feed, tag.current());
            feed.notify();
        }
        if feed.close_if_unused() {
            return Ok(());
        }
    }
}
