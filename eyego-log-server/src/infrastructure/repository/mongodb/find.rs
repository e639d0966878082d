//! Reads logs: pages by query, one by id.

use bson::{doc, oid::ObjectId};
use eyego_log_core::query::Order;
use eyego_log_core::{LogEntry, LogId, LogQuery};
use mongodb::options::{Collation, ReadConcern};

use super::connection::{self, MongoConnection, READ_TIME};
use super::{decode, filter};
use crate::domain::repository::{Page, ReadError};

/// Strings are the same when their bytes are, whatever the collection's own
/// rules.
pub(super) fn by_bytes() -> Collation {
    Collation::builder().locale("simple").build()
}

/// See [`LogRepository::find`](crate::domain::repository::LogRepository::find).
pub(super) async fn find(
    connection: &MongoConnection,
    query: &LogQuery,
) -> Result<Page, ReadError> {
    let collection = connection.collection(&connection.options().collection)?;
    let filter = filter::of_query(query);
    let direction = match query.order {
        Order::Descending => -1,
        Order::Ascending => 1,
    };
    let (skip, rows) = (query.skipped_rows(), query.limit.saturating_add(1));
    let entries = connection::read(async move {
        let mut cursor = collection
            .find(filter)
            .sort(doc! { "timestamp": direction, "_id": direction })
            .skip(skip)
            .limit(i64::from(rows))
            .batch_size(rows)
            .collation(by_bytes())
            .max_time(READ_TIME)
            .await?;
        let mut entries = Vec::new();
        while cursor.advance().await? {
            entries.extend(log(cursor.current()));
        }
        Ok(entries)
    })
    .await?;
    Ok(Page::from_one_more(entries, query.limit))
}

/// See [`LogRepository::get`](crate::domain::repository::LogRepository::get).
/// What it answers is durable: a majority has it.
pub(super) async fn get(
    connection: &MongoConnection,
    id: LogId,
) -> Result<Option<LogEntry>, ReadError> {
    let collection = connection.collection(&connection.options().collection)?;
    let entry = connection::read(async move {
        let document = collection
            .find_one(doc! { "_id": ObjectId::from_bytes(*id.as_bytes()) })
            .read_concern(ReadConcern::majority())
            .max_time(READ_TIME)
            .await?;
        Ok(document.and_then(|document| log(&document)))
    })
    .await?;
    Ok(entry)
}

/// What cannot be read costs the others of its page nothing. The filter lets
/// through hardly any such document.
fn log(document: &bson::RawDocument) -> Option<LogEntry> {
    match decode::entry(document) {
        Ok(entry) => Some(entry),
        Err(reason) => {
            let id = document.get("_id").ok().flatten();
            tracing::warn!(?id, reason, "a document in the logs' collection is not a log: skipped");
            None
        }
    }
}
