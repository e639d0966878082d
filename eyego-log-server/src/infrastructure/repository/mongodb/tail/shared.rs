//! The task that reads the change stream which all tails share.

use std::collections::HashSet;
use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::LogId;
use tokio::time::{Instant, sleep};

use super::changes::{self, Change, Changes};
use super::token::{self, Position};
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

/// Reads the change stream into `feed`, until no tail is open. After an outage it
/// continues from its position.
pub(super) async fn run(
    connection: Arc<MongoConnection>,
    feed: Arc<Feed<Position>>,
    stream: Changes,
) {
    let mut stopped = connection.stopped();
    let error = tokio::select! {
        result = follow(&connection, &feed, stream) => result,
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
    mut stream: Changes,
) -> Result<(), TailError> {
    loop {
        match read(connection, feed, &mut stream).await {
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

/// Reads until no tail is open.
async fn read(
    connection: &MongoConnection,
    feed: &Feed<Position>,
    stream: &mut Changes,
) -> Result<(), TailError> {
    let mut removed = HashSet::new();
    // When the first change was added that tails have not been woken for.
    let mut pending: Option<Instant> = None;
    let mut notified = Instant::now();
    loop {
        let change = {
            let mut next = pin!(changes::next(stream));
            loop {
                let left = pending.map_or(LINGER, |since| LINGER.saturating_sub(since.elapsed()));
                tokio::select! {
                    biased;
                    change = &mut next => break change?,
                    () = sleep(left), if pending.is_some() => {
                        (pending, notified) = (None, Instant::now());
                        publish(feed, &mut removed);
                    }
                }
            }
        };
        match change {
            Some(change) => {
                let Some(position) = changes::position_of(&change) else { continue };
                match changes::read(connection, &change).await? {
                    Change::Stored(Some(entry)) => {
                        feed.push(Arc::clone(&position), iter::once((position, entry)));
                    }
                    Change::Stored(None) => feed.push(position, iter::empty()),
                    Change::Removed(id) => {
                        removed.extend(id);
                        feed.push(position, iter::empty());
                    }
                }
                pending.get_or_insert_with(Instant::now);
            }
            None => {
                if let Some(end) = stream.resume_token().as_ref().and_then(token::position) {
                    feed.push(end, iter::empty());
                }
                if notified.elapsed() >= POSITION_INTERVAL {
                    pending.get_or_insert_with(Instant::now);
                }
            }
        }
        if pending.is_some_and(|since| since.elapsed() >= LINGER) {
            (pending, notified) = (None, Instant::now());
            publish(feed, &mut removed);
        }
        if feed.close_if_unused() {
            return Ok(());
        }
    }
}

/// Removes what was removed from the store, and wakes the tails.
fn publish(feed: &Feed<Position>, removed: &mut HashSet<LogId>) {
    if !removed.is_empty() {
        feed.remove(|_, entry| removed.contains(&entry.id));
        removed.clear();
    }
    feed.notify();
}
