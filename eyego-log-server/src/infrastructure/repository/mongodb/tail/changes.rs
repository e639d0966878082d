//! Opens change streams of the collection of log entries, and reads what they return.

use std::time::Duration;

use bson::raw::RawDocument;
use bson::{Document, RawDocumentBuf, doc};
use eyego_log_core::{LogEntry, LogId};
use mongodb::change_stream::ChangeStream;
use mongodb::error::{Error, ErrorKind};
use tokio::time::timeout;

use super::token::{self, Position};
use crate::domain::read::ReadError;
use crate::domain::tail::TailError;
use crate::infrastructure::repository::mongodb::connection::MongoConnection;
use crate::infrastructure::repository::mongodb::decode::Undecodable;
use crate::infrastructure::repository::mongodb::failure::{Class, Failure};
use crate::infrastructure::repository::mongodb::large;
use crate::infrastructure::repository::mongodb::operation::READ_TIMEOUT;

/// How long MongoDB waits for a change before it responds without one.
const MAX_AWAIT: Duration = Duration::from_secs(1);

/// Number of changes in a response. With events of the default maximum size, a
/// response has 4 MiB.
const BATCH: u32 = 16;

/// The history from the token on is no longer in the oplog.
const CHANGE_STREAM_HISTORY_LOST: i32 = 286;

/// The `$changeStream` stage is only supported on replica sets.
const NO_REPLICA_SET: i32 = 40573;

pub(super) type Changes = ChangeStream<RawDocumentBuf>;

/// A change of the collection.
pub(super) enum Change {
    /// An event was stored. `None` if the document is not one.
    Stored(Option<LogEntry>),
    /// The event with this id was removed. `None` if the document was not one.
    Removed(Option<LogId>),
}

/// What a change stream returns next.
pub(super) enum Next {
    Change(RawDocumentBuf),
    /// There was no change within a second.
    Idle,
    /// The collection was dropped or renamed. Nothing follows, also if the change stream is
    /// opened again at the same position.
    Dropped,
}

/// Opens a change stream at the current end, and returns that position.
pub(super) async fn open_at_end(
    connection: &MongoConnection,
) -> Result<(Changes, Position), TailError> {
    let mut stream = open(connection, None, true).await?;
    if let Some(position) = stream.resume_token().as_ref().and_then(token::position) {
        return Ok((stream, position));
    }
    // The first response has changes, so the position is known only after one of them.
    let no_position = || ReadError::Failed("a change stream has no resume token".to_owned());
    match next(&mut stream).await? {
        Next::Change(change) => {
            let position = position_of(&change).ok_or_else(no_position)?;
            Ok((stream, position))
        }
        Next::Idle => Err(no_position().into()),
        Next::Dropped => Err(dropped().into()),
    }
}

/// Opens a change stream after a position. `with_removals` includes removed events.
pub(super) async fn open(
    connection: &MongoConnection,
    after: Option<&str>,
    with_removals: bool,
) -> Result<Changes, TailError> {
    let collection = connection.read_from(&connection.options().collection);
    let collection = collection.map_err(ReadError::from)?;
    let after = after.map(token::resume_token).transpose()?;
    let is_resumed = after.is_some();
    let opened = collection
        .watch()
        .pipeline([of_events(with_removals)])
        .max_await_time(MAX_AWAIT)
        .batch_size(BATCH);
    let opened = match after {
        Some(after) => opened.start_after(after),
        None => opened,
    };
    match timeout(READ_TIMEOUT, opened).await {
        Ok(Ok(stream)) => Ok(stream.with_type()),
        Ok(Err(error)) => Err(tail_error(&error, is_resumed)),
        Err(_) => Err(ReadError::from(Failure::timed_out(READ_TIMEOUT)).into()),
    }
}

fn of_events(with_removals: bool) -> Document {
    let types: &[&str] = if with_removals { &["insert", "delete"] } else { &["insert"] };
    doc! { "$match": { "operationType": { "$in": types } } }
}

/// Waits up to a second for the next change.
pub(super) async fn next(stream: &mut Changes) -> Result<Next, TailError> {
    match stream.next_if_any().await {
        Ok(Some(change)) => Ok(Next::Change(change)),
        Ok(None) if stream.is_alive() => Ok(Next::Idle),
        Ok(None) => Ok(Next::Dropped),
        Err(error) => Err(tail_error(&error, false)),
    }
}

/// Returns the error of tails whose collection was dropped.
pub(super) fn dropped() -> ReadError {
    ReadError::Failed("the collection of events was dropped or renamed".to_owned())
}

/// Converts an error. `is_resumed` is true if the client's token can be
/// the cause.
pub(super) fn tail_error(error: &Error, is_resumed: bool) -> TailError {
    if let ErrorKind::Command(command) = error.kind.as_ref() {
        match command.code {
            CHANGE_STREAM_HISTORY_LOST => return TailError::TokenTooOld,
            NO_REPLICA_SET => {
                return TailError::Unsupported(
                    "the tail needs MongoDB to be a replica set (also one of a single member): a \
                     standalone mongod has no change streams",
                );
            }
            _ => {}
        }
    }
    let failure = Failure::from(error);
    match failure.class {
        Class::Document | Class::Unknown if is_resumed => {
            tracing::debug!(reason = failure.message, "a token was refused");
            TailError::InvalidToken
        }
        _ => TailError::Read(failure.into()),
    }
}

/// Returns the position of a change.
pub(super) fn position_of(change: &RawDocument) -> Option<Position> {
    change.get_document("_id").ok()?.get_str("_data").ok().map(Into::into)
}

/// Reads a change. A document that is not an event, or is too large, is logged.
pub(super) async fn read(
    connection: &MongoConnection,
    change: &RawDocument,
) -> Result<Change, ReadError> {
    if change.get_str("operationType").is_ok_and(|kind| kind == "delete") {
        let key = change.get_document("documentKey");
        let id = key.and_then(|key| key.get_object_id("_id"));
        return Ok(Change::Removed(id.ok().map(|id| LogId::from_bytes(id.bytes()))));
    }
    let Ok(document) = change.get_document("fullDocument") else { return Ok(Change::Stored(None)) };
    match decoded(connection, document).await? {
        Ok(entry) => Ok(Change::Stored(Some(entry))),
        Err(error) => {
            connection.warn_skipped(document, &error.to_string());
            Ok(Change::Stored(None))
        }
    }
}

/// Decodes a document. Waits for other large ones, because a change cannot be read again.
async fn decoded(
    connection: &MongoConnection,
    document: &RawDocument,
) -> Result<Result<LogEntry, Undecodable>, ReadError> {
    loop {
        match large::decode(connection, document).await {
            Err(ReadError::Overloaded(_)) => {}
            decoded => return decoded,
        }
    }
}
