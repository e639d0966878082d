//! [`LogRemoval`] in MongoDB: finds documents by an existing index, then deletes
//! them by `_id`.

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};
use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{LogId, Timestamp, UserId};
use mongodb::Collection;

use super::MongoRepository;
use super::connection::DEAD_LETTERS;
use super::decode::time;
use super::failure::Failure;
use super::filter::{after, by_bytes, date, is_event};
use super::operation::{self, MAX_READ_TIME};
use crate::domain::removal::{Examined, LogRemoval, Window};
use crate::domain::repository::StoreError;
use crate::domain::retention::Retention;

#[async_trait]
impl LogRemoval for MongoRepository {
    async fn delete_expired(
        &self,
        retention: &Retention,
        now: Timestamp,
        window: &Window,
        limit: u32,
    ) -> Result<Examined, StoreError> {
        let mut conditions = vec![is_event(), doc! { "timestamp": { "$lt": date(window.before) } }];
        if let Some(action) = &window.action {
            conditions.push(doc! { "action": { "$eq": action } });
        }
        if let Some(cursor) = window.after {
            conditions.extend(after("timestamp", Order::Ascending, cursor));
        }
        let logs = self.logs()?;
        let projection = doc! { "timestamp": 1, "action": 1 };
        let sort = doc! { "timestamp": 1, "_id": 1 };
        let filter = doc! { "$and": conditions };
        let found = find(&logs, filter, Some(sort), projection, limit).await?;
        let mut expired = Vec::new();
        let mut last = None;
        for document in &found {
            let timestamp = document.get("timestamp").ok().flatten().and_then(time);
            let (Ok(id), Ok(action)) = (document.get_object_id("_id"), document.get_str("action"))
            else {
                continue;
            };
            // Years that no timestamp can have count as the earliest or latest one.
            let timestamp = timestamp.unwrap_or(Timestamp::MIN);
            last = Some(Cursor { timestamp, id: LogId::from_bytes(id.bytes()) });
            if retention.is_expired(action, timestamp, now) {
                expired.push(Bson::from(id));
            }
        }
        let deleted = delete(&logs, expired).await?;
        let is_complete = found.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Examined { deleted, next: last.filter(|_| !is_complete) })
    }

    async fn delete_of_user(
        &self,
        user_id: &UserId,
        received_before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let logs = self.logs()?;
        let filter = received_by(user_id, received_before);
        let found = find(&logs, filter, None, doc! { "_id": 1 }, limit).await?;
        let ids = found.iter().filter_map(|document| {
            document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok())
        });
        Ok(delete(&logs, ids.collect()).await?)
    }

    async fn dead_letters_of_user(
        &self,
        user_id: &UserId,
        after: Option<LogId>,
        limit: u32,
    ) -> Result<Vec<LogId>, StoreError> {
        let mut filter = doc! { "userId": { "$eq": user_id.as_str() } };
        if let Some(after) = after {
            filter.insert("_id", doc! { "$gt": ObjectId::from_bytes(*after.as_bytes()) });
        }
        let dead_letters = self.connection.collection(DEAD_LETTERS)?;
        let sort = Some(doc! { "_id": 1 });
        let found = find(&dead_letters, filter, sort, doc! { "_id": 1 }, limit).await?;
        let id = |document: &RawDocumentBuf| {
            document.get_object_id("_id").ok().map(|id| LogId::from_bytes(id.bytes()))
        };
        Ok(found.iter().filter_map(id).collect())
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        let filter = doc! { "timestamp": { "$gte": date(Timestamp::MIN) } };
        let sort = Some(doc! { "timestamp": 1, "_id": 1 });
        let found = find(&self.logs()?, filter, sort, doc! { "timestamp": 1 }, 1).await?;
        Ok(found
            .first()
            .and_then(|document| document.get("timestamp").ok().flatten())
            .and_then(time))
    }

    /// The files belong to `mongod`.
    async fn purge(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl MongoRepository {
    fn logs(&self) -> Result<Collection<RawDocumentBuf>, Failure> {
        self.connection.collection(&self.connection.options().collection)
    }
}

/// Returns the condition for the documents of a user that were received before
/// this time. Documents of the legacy service have no `receivedAt`.
fn received_by(user_id: &UserId, before: Timestamp) -> Document {
    let at = date(before);
    let seconds = u32::try_from(before.as_millis().div_euclid(1000)).unwrap_or_default();
    let mut first_id = [0; 12];
    first_id[..4].copy_from_slice(&seconds.to_be_bytes());
    doc! {
        "userId": { "$eq": user_id.as_str() },
        "$or": [
            { "receivedAt": { "$lt": at } },
            { "receivedAt": null, "$or": [
                { "timestamp": { "$lt": at } },
                { "createdAt": { "$lt": at } },
                { "_id": { "$lt": ObjectId::from_bytes(first_id) } },
            ] },
        ],
    }
}

async fn find(
    collection: &Collection<RawDocumentBuf>,
    filter: Document,
    sort: Option<Document>,
    projection: Document,
    limit: u32,
) -> Result<Vec<RawDocumentBuf>, Failure> {
    let collection = collection.clone();
    operation::read(async move {
        let mut find = collection
            .find(filter)
            .projection(projection)
            .limit(i64::from(limit))
            .batch_size(limit)
            .collation(by_bytes())
            .max_time(MAX_READ_TIME);
        if let Some(sort) = sort {
            find = find.sort(sort);
        }
        operation::documents(find.await?).await
    })
    .await
}

async fn delete(collection: &Collection<RawDocumentBuf>, ids: Vec<Bson>) -> Result<u64, Failure> {
    if ids.is_empty() {
        return Ok(0);
    }
    let collection = collection.clone();
    let filter = doc! { "_id": { "$in": ids } };
    let deleted = operation::write(async move { collection.delete_many(filter).await }).await?;
    Ok(deleted.deleted_count)
}
