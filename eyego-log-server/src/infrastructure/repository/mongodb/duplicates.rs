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
    let mut offered: HashMap<LogId, Vec<usize>> = HashMap::new();
    for (index, refusal) in &refused {
        if matches!(refusal, Refusal::DuplicateId | Refusal::DuplicateKey(_)) {
            offered.entry(entries[*index].id).or_default().push(*index);
        }
    }
    let conflicts = compare(connection, entries, &offered).await.map_err(|failure| {
        match failure.class {
            Class::Operator => failure,
            // No entry is the cause of a failed read.
            _ => Failure::transient(failure.message),
        }
    })?;
    for (index, refusal) in refused {
        let entry = &entries[index];
        outcomes[index] = match (refusal, conflicts.get(&index)) {
            (Refusal::Rejected(rejection), _) | (Refusal::DuplicateKey(rejection), None) => {
                StoreOutcome::Rejected(rejection)
            }
            (Refusal::DuplicateId | Refusal::DuplicateKey(_), Some(conflicting)) => {
                StoreOutcome::Duplicate { conflicting: *conflicting }
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

/// Reads the documents with the offered ids, as a majority has them, in one query.
/// Returns, for each index of an entry whose document exists, whether it
/// conflicts.
///
/// Documents are compared while they arrive: those of a bulk of small events can
/// be large.
async fn compare(
    connection: &MongoConnection,
    entries: &[LogEntry],
    offered: &HashMap<LogId, Vec<usize>>,
) -> Result<HashMap<usize, bool>, Failure> {
    let mut compared = HashMap::new();
    if offered.is_empty() {
        return Ok(compared);
    }
    let collection = connection.collection(&connection.options().collection)?;
    let ids: Vec<_> = offered.keys().map(|id| ObjectId::from_bytes(*id.as_bytes())).collect();
    let rows = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let find = collection
        .find(doc! { "_id": { "$in": ids } })
        .read_concern(ReadConcern::majority())
        .batch_size(operation::batch_size(rows))
        .max_time(MAX_READ_TIME);
    let comparing = async {
        let mut cursor = find.await?;
        while cursor.advance().await? {
            let document = cursor.current();
            let Ok(id) = document.get_object_id("_id") else { continue };
            for index in offered.get(&LogId::from_bytes(id.bytes())).into_iter().flatten() {
                compared.insert(*index, conflicts(document, &entries[*index]));
            }
        }
        Ok::<_, mongodb::error::Error>(())
    };
    match tokio::time::timeout(operation::READ_TIMEOUT, comparing).await {
        Ok(Ok(())) => Ok(compared),
        Ok(Err(error)) => Err(Failure::from(&error)),
        Err(_) => Err(Failure::timed_out(operation::READ_TIMEOUT)),
    }
}

/// Returns `true` if the stored document has different content than `offered`.
fn conflicts(stored: &RawDocument, offered: &LogEntry) -> bool {
    // A document that is not an event is different for certain.
    let Ok(stored) = decode::any_entry(stored) else { return true };
    if !is_conflict(&stored, offered) {
        return false;
    }
    // An integer outside i64 becomes a double when it is stored, so compare with
    // the document that would be stored.
    let mut bytes = Vec::new();
    let as_stored = encode::push_entry(&mut bytes, offered)
        .ok()
        .and_then(|()| RawDocumentBuf::from_bytes(bytes).ok())
        .and_then(|document| decode::any_entry(&document).ok());
    as_stored.is_none_or(|offered| is_conflict(&stored, &offered))
}
