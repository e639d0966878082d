//! Large documents. Other programs may store documents of up to 16 MiB, whose JSON is
//! up to 9 times as large. A few of them are read and decoded at a time, on threads
//! that serve nobody else, and what exceeds the limit of a response is not decoded.

use bson::raw::RawDocument;
use bson::{Document, RawDocumentBuf, doc};
use eyego_log_core::LogEntry;
use mongodb::Collection;
use mongodb::options::ReadConcern;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::MongoConnection;
use super::decode::{self, Undecodable};
use super::operation::{MAX_READ_TIME, QueryError};
use crate::domain::read::ReadError;
use crate::infrastructure::repository::limits::ReadKind;

/// Size in bytes above which a document is large. A smaller one is decoded within 5 ms.
const LARGE_DOCUMENT: i32 = 1 << 20;

/// A document, and the permit to hold it if it is large.
pub(super) struct Found {
    pub(super) document: RawDocumentBuf,
    permit: Option<OwnedSemaphorePermit>,
}

/// Returns the document with this id, as a majority has it.
pub(super) async fn find_by_id(
    connection: &MongoConnection,
    collection: &Collection<RawDocumentBuf>,
    id: bson::oid::ObjectId,
) -> Result<Option<Found>, QueryError> {
    let find = async |filter: Document| {
        let find = collection.find_one(filter).read_concern(ReadConcern::majority());
        find.max_time(MAX_READ_TIME).await
    };
    let size = doc! { "$bsonSize": "$$ROOT" };
    let is_small = doc! { "$expr": { "$lte": [size.clone(), LARGE_DOCUMENT] } };
    if let Some(document) = find(doc! { "_id": id, "$and": [is_small] }).await? {
        return Ok(Some(Found { document, permit: None }));
    }
    let is_large = doc! { "$expr": { "$gt": [size, LARGE_DOCUMENT] } };
    let exists = collection
        .find_one(doc! { "_id": id, "$and": [is_large] })
        .projection(doc! { "_id": 1 })
        .read_concern(ReadConcern::majority())
        .max_time(MAX_READ_TIME)
        .await?;
    if exists.is_none() {
        return Ok(None);
    }
    let permit = connection.limits().acquire(ReadKind::Large).await?;
    let document = find(doc! { "_id": id }).await?;
    Ok(document.map(|document| Found { document, permit: Some(permit) }))
}

/// Decodes the document that was found.
pub(super) async fn decode_found(found: Found) -> Result<Result<LogEntry, Undecodable>, ReadError> {
    match found.permit {
        None => Ok(decode::entry(&found.document)),
        Some(permit) => decode_apart(found.document, permit).await,
    }
}

/// Decodes a document of a result.
pub(super) async fn decode(
    connection: &MongoConnection,
    document: &RawDocument,
) -> Result<Result<LogEntry, Undecodable>, ReadError> {
    if i32::try_from(document.as_bytes().len()).is_ok_and(|size| size <= LARGE_DOCUMENT) {
        return Ok(decode::entry(document));
    }
    let permit = connection.limits().acquire(ReadKind::Large).await?;
    decode_apart(document.to_owned(), permit).await
}

async fn decode_apart(
    document: RawDocumentBuf,
    permit: OwnedSemaphorePermit,
) -> Result<Result<LogEntry, Undecodable>, ReadError> {
    let work = move || {
        let entry = decode::entry(&document);
        drop((document, permit));
        entry
    };
    let decoded = tokio::task::spawn_blocking(work).await;
    decoded.map_err(|error| ReadError::Failed(format!("decoding a document failed: {error}")))
}
