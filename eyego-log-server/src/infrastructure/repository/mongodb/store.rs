//! Stores entries: one `insert` for a bulk, and one read for what was there
//! already.

use std::collections::HashMap;

use bson::raw::RawDocument;
use bson::{RawDocumentBuf, doc, oid::ObjectId};
use eyego_log_core::{LogEntry, LogId};
use mongodb::options::ReadConcern;

use super::connection::{self, MongoConnection, READ_TIME};
use super::failure::{Class, Failure};
use super::insert::{self, Plan, Refusal};
use super::{decode, encode};
use crate::domain::repository::{StoreError, StoreOutcome, is_conflict};

/// See [`LogRepository::store`](crate::domain::repository::LogRepository::store).
pub(super) async fn store(
    connection: &MongoConnection,
    entries: &[LogEntry],
) -> Result<Vec<StoreOutcome>, StoreError> {
    connection.check_writable()?;
    let collection = &connection.options().collection;
    let Plan { inserts, rejected } = insert::plan(collection, entries)?;
    let mut outcomes = vec![StoreOutcome::Stored; entries.len()];
    for (place, rejection) in rejected {
        outcomes[place] = StoreOutcome::Rejected(rejection);
    }
    let mut refused = Vec::new();
    for insert in inserts {
        let database = connection.database()?;
        let (command, sent) = (insert.command, insert.places.len());
        let answer =
            connection::write(async move { database.run_raw_command(command).await }).await?;
        for (index, refusal) in insert::refusals(&answer, sent)? {
            refused.push((insert.places[index], refusal));
        }
    }
    if !refused.is_empty() {
        judge(connection, entries, refused, &mut outcomes).await?;
    }
    Ok(outcomes)
}

/// Tells duplicates from rejections.
///
/// An answer without a write concern error means that a majority has all that
/// the server knew when it answered: also the log that an id was taken by. A
/// majority read then sees it.
async fn judge(
    connection: &MongoConnection,
    entries: &[LogEntry],
    refused: Vec<(usize, Refusal)>,
    outcomes: &mut [StoreOutcome],
) -> Result<(), StoreError> {
    let taken: Vec<LogId> = refused
        .iter()
        .filter(|(_, refusal)| matches!(refusal, Refusal::Taken | Refusal::OtherKey(_)))
        .map(|(place, _)| entries[*place].id)
        .collect();
    let stored = read(connection, &taken).await.map_err(|failure| match failure.class {
        Class::Operator => failure,
        // Whatever else it is: no entry is at fault when a read fails.
        _ => Failure::transient(failure.message),
    })?;
    for (place, refusal) in refused {
        let entry = &entries[place];
        outcomes[place] = match (refusal, stored.get(&entry.id)) {
            (Refusal::Rejected(rejection), _) | (Refusal::OtherKey(rejection), None) => {
                StoreOutcome::Rejected(rejection)
            }
            (Refusal::Taken | Refusal::OtherKey(_), Some(stored)) => {
                StoreOutcome::Duplicate { conflicting: conflicts(stored, entry) }
            }
            // Somebody removed it meanwhile: the next attempt stores it.
            (Refusal::Taken, None) => {
                let message = format!("the log {} was there and is not any more", entry.id);
                return Err(StoreError::Transient(message));
            }
        };
    }
    Ok(())
}

/// The documents with these ids, as a majority has them.
async fn read(
    connection: &MongoConnection,
    ids: &[LogId],
) -> Result<HashMap<LogId, RawDocumentBuf>, Failure> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let collection = connection.collection(&connection.options().collection)?;
    let ids: Vec<ObjectId> = ids.iter().map(|id| ObjectId::from_bytes(*id.as_bytes())).collect();
    connection::read(async move {
        let mut cursor = collection
            .find(doc! { "_id": { "$in": ids } })
            .read_concern(ReadConcern::majority())
            .max_time(READ_TIME)
            .await?;
        let mut found = HashMap::new();
        while cursor.advance().await? {
            let document = cursor.current();
            if let Ok(id) = document.get_object_id("_id") {
                found.insert(LogId::from_bytes(id.bytes()), document.to_owned());
            }
        }
        Ok(found)
    })
    .await
}

/// Whether what is stored says something else than what is offered.
fn conflicts(stored: &RawDocument, offered: &LogEntry) -> bool {
    // What is no log is certainly another one.
    let Ok(stored) = decode::entry(stored) else { return true };
    if !is_conflict(&stored, offered) {
        return false;
    }
    // An integer that only a float holds is a float once it is stored. Compare
    // what would be stored.
    let mut bytes = Vec::new();
    let as_stored = encode::push_entry(&mut bytes, offered)
        .ok()
        .and_then(|()| RawDocumentBuf::from_bytes(bytes).ok())
        .and_then(|document| decode::entry(&document).ok());
    as_stored.is_none_or(|offered| is_conflict(&stored, &offered))
}
