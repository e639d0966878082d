//! [`Erasures`] in MongoDB: a collection in the same database as the log entries,
//! and a document that is the lease.

use std::sync::Arc;

use async_trait::async_trait;
use bson::raw::RawDocument;
use bson::{Document, RawBsonRef, RawDocumentBuf, doc, oid::ObjectId};
use eyego_log_core::query::Order;
use eyego_log_core::{LogId, Timestamp, UserId};
use mongodb::Collection;
use mongodb::options::ReadConcern;

use super::connection::MongoConnection;
use super::failure::{Class, DUPLICATE_KEY, Failure};
use super::filter::{after, by_bytes, date};
use super::operation::{self, MAX_READ_TIME};
use crate::domain::erasure::{CutOffs, Erasure, ErasureQuery, Erasures, LEASE_SECONDS, Removed};
use crate::domain::repository::StoreError;

/// Collections in the same database as the log entries.
const ERASURES: &str = "erasures";
const LEASES: &str = "leases";

/// Id of the lease on removing.
const LEASE: &str = "removal";

/// Erasures in MongoDB.
#[derive(Debug, Clone)]
pub struct MongoErasures {
    connection: Arc<MongoConnection>,
}

impl MongoErasures {
    /// Creates the erasures of this connection.
    #[must_use]
    pub fn new(connection: Arc<MongoConnection>) -> Self {
        Self { connection }
    }

    fn collection(&self) -> Result<Collection<RawDocumentBuf>, Failure> {
        self.connection.collection(ERASURES)
    }

    async fn update(&self, filter: Document, update: Document) -> Result<(), StoreError> {
        self.connection.check_writable()?;
        let collection = self.collection()?;
        operation::write(async move { collection.update_one(filter, update).await }).await?;
        Ok(())
    }

    /// Reads with a majority, so what it returns is durable.
    async fn find(
        &self,
        filter: Document,
        projection: Option<Document>,
        limit: i64,
    ) -> Result<Vec<RawDocumentBuf>, Failure> {
        let collection = self.collection()?;
        operation::read(async move {
            let mut find = collection
                .find(filter)
                .sort(doc! { "requestedAt": -1, "_id": -1 })
                .limit(limit)
                .collation(by_bytes())
                .read_concern(ReadConcern::majority())
                .max_time(MAX_READ_TIME);
            if let Some(projection) = projection {
                find = find.projection(projection);
            }
            operation::documents(find.await?).await
        })
        .await
    }
}

#[async_trait]
impl Erasures for MongoErasures {
    async fn record(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.connection.check_writable()?;
        let collection = self.collection()?;
        let (filter, insert) = (by_id(erasure.id), doc! { "$setOnInsert": document(erasure) });
        operation::write(async move { collection.update_one(filter, insert).upsert(true).await })
            .await?;
        Ok(())
    }

    async fn get(&self, id: LogId) -> Result<Option<Erasure>, StoreError> {
        let found = self.find(by_id(id), None, 1).await?;
        Ok(found.first().map(|document| read(document)).transpose()?)
    }

    async fn list(&self, query: &ErasureQuery) -> Result<Vec<Erasure>, StoreError> {
        let mut conditions = vec![doc! {}];
        if query.only_running {
            conditions.push(doc! { "completedAt": null });
        }
        if let Some(cursor) = query.after {
            conditions.extend(after("requestedAt", Order::Descending, cursor));
        }
        let found = self.find(doc! { "$and": conditions }, None, i64::from(query.limit)).await?;
        Ok(found.iter().map(|document| read(document)).collect::<Result<_, _>>()?)
    }

    async fn cut_offs(&self) -> Result<CutOffs, StoreError> {
        let projection = doc! { "userId": 1, "requestedAt": 1 };
        let mut cut_offs = CutOffs::default();
        for document in self.find(doc! {}, Some(projection), 0).await? {
            let (user_id, cut_off) = read_cut_off(&document)?;
            cut_offs.add(user_id, cut_off);
        }
        Ok(cut_offs)
    }

    async fn add_removed(&self, id: LogId, removed: Removed) -> Result<(), StoreError> {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let increments = doc! {
            "removed.store": count(removed.store),
            "removed.deadLetters": count(removed.dead_letters),
        };
        self.update(by_id(id), doc! { "$inc": increments }).await
    }

    async fn complete(&self, id: LogId, at: Timestamp) -> Result<(), StoreError> {
        let mut filter = by_id(id);
        filter.insert("completedAt", bson::Bson::Null);
        self.update(filter, doc! { "$set": { "completedAt": date(at) } }).await
    }

    /// Compares times of the server's clock only.
    async fn acquire_lease(&self, holder: LogId) -> Result<bool, StoreError> {
        self.connection.check_writable()?;
        let leases = self.connection.collection(LEASES)?;
        let holder = holder.to_string();
        operation::write(async move {
            let filter = doc! {
                "_id": LEASE,
                "$expr": { "$or": [
                    { "$eq": ["$holder", &holder] },
                    { "$lt": ["$expiresAt", "$$NOW"] },
                ] },
            };
            let expires_at = doc! { "$add": ["$$NOW", i64::from(LEASE_SECONDS) * 1000] };
            let set =
                doc! { "$set": { "holder": { "$literal": holder }, "expiresAt": expires_at } };
            let updated = leases.update_one(filter, vec![set]).await?;
            if updated.matched_count > 0 {
                return Ok(true);
            }
            // The first process creates the lease, and acquires it at its next attempt.
            let free = bson::rawdoc! {
                "_id": LEASE,
                "holder": "",
                "expiresAt": bson::DateTime::from_millis(0),
            };
            match leases.insert_one(free).await {
                Ok(_) => Ok(false),
                Err(error) if is_duplicate(&error) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
        .map_err(StoreError::from)
    }
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    use mongodb::error::{ErrorKind, WriteFailure};

    matches!(
        error.kind.as_ref(),
        ErrorKind::Write(WriteFailure::WriteError(write)) if write.code == DUPLICATE_KEY
    )
}

fn by_id(id: LogId) -> Document {
    doc! { "_id": ObjectId::from_bytes(*id.as_bytes()) }
}

fn document(erasure: &Erasure) -> Document {
    doc! {
        "userId": erasure.user_id.as_str(),
        "requestedAt": date(erasure.requested_at),
        "removed": { "store": 0_i64, "deadLetters": 0_i64 },
    }
}

fn invalid(field: &str) -> Failure {
    let message = format!("a document in {ERASURES} is not an erasure: invalid {field}");
    Failure::new(Class::Operator, "mongodb_invalid_erasure", message)
}

fn read_cut_off(document: &RawDocument) -> Result<(UserId, Timestamp), Failure> {
    let user_id = document.get_str("userId").ok().and_then(UserId::from_stored);
    let cut_off = document.get("requestedAt").ok().flatten().and_then(super::decode::time);
    Ok((user_id.ok_or_else(|| invalid("userId"))?, cut_off.ok_or_else(|| invalid("requestedAt"))?))
}

fn read(document: &RawDocument) -> Result<Erasure, Failure> {
    let (user_id, requested_at) = read_cut_off(document)?;
    let count = |field: &str| match document.get_document("removed").map(|counts| counts.get(field))
    {
        Ok(Ok(Some(RawBsonRef::Int64(count)))) => count.unsigned_abs(),
        Ok(Ok(Some(RawBsonRef::Int32(count)))) => u64::from(count.unsigned_abs()),
        _ => 0,
    };
    Ok(Erasure {
        id: match document.get("_id") {
            Ok(Some(RawBsonRef::ObjectId(id))) => LogId::from_bytes(id.bytes()),
            _ => return Err(invalid("_id")),
        },
        user_id,
        requested_at,
        removed: Removed { store: count("store"), dead_letters: count("deadLetters") },
        completed_at: document.get("completedAt").ok().flatten().and_then(super::decode::time),
    })
}
