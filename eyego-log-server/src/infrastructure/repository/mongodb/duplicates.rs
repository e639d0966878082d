//! Tells duplicates from rejections among the documents that an insert refused.

use std::collections::HashMap;

use bson::raw::RawDocument;
use bson::{RawDocumentBuf, doc, oid::ObjectId};
use eyego_log_core::{LogEntry, LogId};
use mongodb::options::ReadConcern;

use super::connection::MongoConnection;
use super::failure::{Class, Failure};
use super::insert::Refusal;
use super::operation::{self, MAX_READ_TIME};
use super::{decode, encode};
use crate::domain::repository::{StoreError, StoreOutcome, is_conflict};

/// Sets the outcome of each refused entry, given with its index in `entries`.
///
/// The insert had no write concern error, so a majority has everything that the
/// server had when it responded, including the documents whose ids were taken. A
/// majority read therefore sees them.
///
/// # Errors
/// Returns an error if the stored documents cannot be read.
pub(super) async fn resolve(
    connection: &MongoConnection,
    entries: &[LogEntry],
    refused: Vec<(usize, Refusal)>,
    outcomes: &mut [StoreOutcome],
) -> Result<(), StoreError> {
    let ids: Vec<LogId> = refused
        .iter()
        .filter(|(_, refusal)| matches!(refusal, Refusal::DuplicateId | Refusal::DuplicateKey(_)))
        .map(|(index, _)| entries[*index].id)
        .collect();
    let stored = read(connection, &ids).await.map_err(|failure| match failure.class {
        Class::Operator => failure,
        // No entry is the cause of a failed read.
        _ => Failure::transient(failure.message),
    })?;
    for (index, refusal) in refused {
        let entry = &entries[index];
        outcomes[index] = match (refusal, stored.get(&entry.id)) {
            (Refusal::Rejected(rejection), _) | (Refusal::DuplicateKey(rejection), None) => {
                StoreOutcome::Rejected(rejection)
            }
            (Refusal::DuplicateId | Refusal::DuplicateKey(_), Some(stored)) => {
                StoreOutcome::Duplicate { conflicting: conflicts(stored, entry) }
            }
            // The document was removed in the meantime: the next attempt stores
            // the entry.
            (Refusal::DuplicateId, None) => {
                let message = format!("the event {} was removed while it was stored", entry.id);
                return Err(StoreError::Transient(message));
            }
        };
    }
    Ok(())
}

/// Reads the documents with these ids, as a majority has them.
async fn read(
    connection: &MongoConnection,
    ids: &[LogId],
) -> Result<HashMap<LogId, RawDocumentBuf>, Failure> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let collection = connection.collection(&connection.options().collection)?;
    let ids: Vec<ObjectId> = ids.iter().map(|id| ObjectId::from_bytes(*id.as_bytes())).collect();
    operation::read(async move {
        let mut cursor = collection
            .find(doc! { "_id": { "$in": ids } })
            .read_concern(ReadConcern::majority())
            .max_time(MAX_READ_TIME)
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

/// Returns `true` if the stored document has different content than `offered`.
fn conflicts(stored: &RawDocument, offered: &LogEntry) -> bool {
    // A document that is not an event is different for certain.
    let Ok(stored) = decode::entry(stored) else { return true };
    if !is_conflict(&stored, offered) {
        return false;
    }
    // An integer outside i64 becomes a double when it is stored, so compare with
    // the document that would be stored.
    let mut bytes = Vec::new();
    let as_stored = encode::push_entry(&mut bytes, offered)
        .ok()
        .and_then(|()| RawDocumentBuf::from_bytes(bytes).ok())
        .and_then(|document| decode::entry(&document).ok());
    as_stored.is_none_or(|offered| is_conflict(&stored, &offered))
}
