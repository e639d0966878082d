//! [`DeadLetters`] in MongoDB: a collection in the same database as the log
//! entries.

use std::sync::Arc;

use async_trait::async_trait;
use bson::raw::RawDocument;
use bson::spec::BinarySubtype;
use bson::{Binary, Document, RawBsonRef, RawDocumentBuf, doc, oid::ObjectId};
use eyego_log_core::LogId;
use eyego_log_core::query::Order;
use mongodb::Collection;

use super::connection::{DEAD_LETTERS, MongoConnection};
use super::failure::{Class, Failure};
use super::filter::{after, by_bytes, date, in_time, position};
use super::large;
use super::operation::{self, MAX_READ_TIME};
use crate::domain::dead_letter::{
    DeadLetter, DeadLetterQuery, DeadLetterSummary, DeadLetters, MAX_TEXT_BYTES, beginning,
};
use crate::domain::read::{Page, PageBuilder, ReadError, ReadMemory};
use crate::domain::repository::StoreError;
use crate::infrastructure::repository::limits::ReadKind;

/// Maximum number of bytes of the record that are kept, so that 1 MiB of the
/// document is left for the other fields.
const MAX_RAW_BYTES: usize = 15 << 20;

/// Dead letters in MongoDB.
#[derive(Debug, Clone)]
pub struct MongoDeadLetters {
    connection: Arc<MongoConnection>,
}

impl MongoDeadLetters {
    /// Creates the dead letters of this connection.
    #[must_use]
    pub fn new(connection: Arc<MongoConnection>) -> Self {
        Self { connection }
    }

    fn collection(&self) -> Result<Collection<RawDocumentBuf>, Failure> {
        self.connection.collection(DEAD_LETTERS)
    }

    fn read_from(&self) -> Result<Collection<RawDocumentBuf>, Failure> {
        self.connection.read_from(DEAD_LETTERS)
    }
}

#[async_trait]
impl DeadLetters for MongoDeadLetters {
    async fn put(&self, dead_letter: &DeadLetter) -> Result<(), StoreError> {
        self.connection.check_writable()?;
        let collection = self.collection()?;
        let (filter, update) = (by_id(dead_letter.summary.id), upsert(dead_letter));
        operation::write(async move { collection.update_one(filter, update).upsert(true).await })
            .await?;
        Ok(())
    }

    async fn list(
        &self,
        query: &DeadLetterQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Page<DeadLetterSummary>, ReadError> {
        let _permit = self.connection.limits().acquire(ReadKind::Range).await?;
        let collection = self.read_from()?;
        let direction = match query.order {
            Order::Descending => -1,
            Order::Ascending => 1,
        };
        let rows = query.limit.saturating_add(1);
        operation::query(async {
            let mut cursor = collection
                .find(filter(query))
                .projection(doc! { "raw": false })
                .sort(doc! { "failedAt": direction, "_id": direction })
                .limit(i64::from(rows))
                .batch_size(operation::batch_size(rows))
                .collation(by_bytes())
                .max_time(MAX_READ_TIME)
                .await?;
            let mut page = PageBuilder::new(query.limit, &*memory);
            let mut left = rows;
            while cursor.advance().await? {
                left -= 1;
                match read_summary(cursor.current()) {
                    Ok(summary) => {
                        if page.push(summary)?.is_break() {
                            return Ok(page.finish());
                        }
                    }
                    // One foreign document does not fail the whole page.
                    Err(failure) => {
                        self.connection.warn_skipped(cursor.current(), &failure.message);
                    }
                }
                if left == 0
                    && let Some(position) = position(cursor.current(), "failedAt")
                {
                    // At least one document was skipped, so more dead letters may follow.
                    page.expect_more_after(position);
                }
            }
            Ok(page.finish())
        })
        .await
    }

    async fn get(&self, id: LogId) -> Result<Option<DeadLetter>, ReadError> {
        let _permit = self.connection.limits().acquire(ReadKind::ById).await?;
        let collection = self.read_from()?;
        let id = ObjectId::from_bytes(*id.as_bytes());
        let found = operation::query(large::find_by_id(&self.connection, &collection, id)).await?;
        Ok(found.map(|found| read(&found.document)).transpose()?)
    }

    async fn remove(&self, id: LogId) -> Result<(), StoreError> {
        self.connection.check_writable()?;
        let collection = self.collection()?;
        operation::write(async move { collection.delete_one(by_id(id)).await }).await?;
        Ok(())
    }

    async fn count(&self, code: Option<&str>) -> Result<u64, ReadError> {
        let _permit = self.connection.limits().acquire(ReadKind::Scan).await?;
        let collection = self.read_from()?;
        let filter = code.map_or_else(Document::new, |code| doc! { "code": { "$eq": code } });
        operation::query(async {
            let count = collection.count_documents(filter).collation(by_bytes());
            Ok(count.max_time(MAX_READ_TIME).await?)
        })
        .await
    }
}

fn by_id(id: LogId) -> Document {
    doc! { "_id": ObjectId::from_bytes(*id.as_bytes()) }
}

/// Returns the filter of a query. All documents that it lets through have a position.
fn filter(query: &DeadLetterQuery) -> Document {
    let mut conditions = vec![doc! { "_id": { "$type": "objectId" } }];
    conditions.extend(in_time("failedAt", query.from, query.to));
    if let Some(code) = &query.code {
        conditions.push(doc! { "code": { "$eq": code } });
    }
    if let Some(cursor) = query.after {
        conditions.extend(after("failedAt", query.order, cursor));
    }
    doc! { "$and": conditions }
}

/// Returns the update that stores a dead letter in one atomic step. If it exists,
/// the failure is replaced; the record and its position are unchanged.
fn upsert(dead_letter: &DeadLetter) -> Document {
    let DeadLetter { summary, raw } = dead_letter;
    let DeadLetterSummary { truncated_from, user_id, topic, partition, offset, queued_at, .. } =
        summary;
    let kept = &raw[..raw.len().min(MAX_RAW_BYTES)];
    let is_truncated = kept.len() < raw.len();
    let truncated_from = truncated_from
        .or_else(|| is_truncated.then(|| u64::try_from(raw.len()).unwrap_or(u64::MAX)));
    let mut on_insert = doc! {
        "raw": Binary { subtype: BinarySubtype::Generic, bytes: kept.to_vec() },
        "topic": shortened(topic),
        "partition": partition,
        "offset": offset,
        "queuedAt": date(*queued_at),
    };
    if let Some(size) = truncated_from {
        on_insert.insert("cutFrom", i64::try_from(size).unwrap_or(i64::MAX));
    }
    if let Some(user_id) = user_id {
        on_insert.insert("userId", shortened(user_id));
    }
    doc! {
        "$set": {
            "code": shortened(&summary.code),
            "message": shortened(&summary.message),
            "failedAt": date(summary.failed_at),
        },
        "$max": { "attempts": i64::from(summary.attempts) },
        "$setOnInsert": on_insert,
    }
}

fn shortened(text: &str) -> &str {
    beginning(text, MAX_TEXT_BYTES)
}

fn read(document: &RawDocument) -> Result<DeadLetter, Failure> {
    let raw = match document.get("raw") {
        Ok(Some(RawBsonRef::Binary(binary))) => binary.bytes.to_vec(),
        _ => return Err(invalid("raw")),
    };
    Ok(DeadLetter { summary: read_summary(document)?, raw })
}

fn invalid(field: &str) -> Failure {
    let message = format!("a document in {DEAD_LETTERS} is not a dead letter: invalid {field}");
    Failure::new(Class::Unknown, "mongodb_invalid_dead_letter", message)
}

fn read_summary(document: &RawDocument) -> Result<DeadLetterSummary, Failure> {
    let get = |field: &str| document.get(field).ok().flatten();
    let text = |field: &str| match get(field) {
        Some(RawBsonRef::String(text)) => Some(shortened(text).to_owned()),
        _ => None,
    };
    let time = |field: &str| get(field).and_then(super::decode::time);
    let integer = |field: &str| get(field).and_then(integer);
    Ok(DeadLetterSummary {
        id: match get("_id") {
            Some(RawBsonRef::ObjectId(id)) => LogId::from_bytes(id.bytes()),
            _ => return Err(invalid("_id")),
        },
        truncated_from: integer("cutFrom").and_then(|size| u64::try_from(size).ok()),
        user_id: text("userId"),
        topic: text("topic").ok_or_else(|| invalid("topic"))?,
        partition: integer("partition")
            .and_then(|partition| partition.try_into().ok())
            .ok_or_else(|| invalid("partition"))?,
        offset: integer("offset").ok_or_else(|| invalid("offset"))?,
        queued_at: time("queuedAt").ok_or_else(|| invalid("queuedAt"))?,
        code: text("code").ok_or_else(|| invalid("code"))?,
        message: text("message").unwrap_or_default(),
        attempts: integer("attempts")
            .and_then(|attempts| attempts.try_into().ok())
            .ok_or_else(|| invalid("attempts"))?,
        failed_at: time("failedAt").ok_or_else(|| invalid("failedAt"))?,
    })
}

fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(value) => Some(i64::from(value)),
        RawBsonRef::Int64(value) => Some(value),
        _ => None,
    }
}
