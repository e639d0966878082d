//! [`LogRepository`] in MongoDB.

use std::sync::Arc;

use async_trait::async_trait;
use bson::raw::RawDocument;
use bson::{doc, oid::ObjectId};
use eyego_log_core::query::Order;
use eyego_log_core::{LogEntry, LogId, LogQuery};
use mongodb::options::ReadConcern;

use super::connection::MongoConnection;
use super::insert::{self, Plan};
use super::operation::{self, MAX_READ_TIME};
use super::{decode, duplicates, filter};
use crate::domain::health::PartHealth;
use crate::domain::repository::{LogRepository, Page, ReadError, StoreError, StoreOutcome};

/// Log entries in MongoDB.
#[derive(Debug, Clone)]
pub struct MongoRepository {
    connection: Arc<MongoConnection>,
}

impl MongoRepository {
    /// Creates the repository of this connection.
    #[must_use]
    pub fn new(connection: Arc<MongoConnection>) -> Self {
        Self { connection }
    }
}

#[async_trait]
impl LogRepository for MongoRepository {
    async fn store(&self, entries: &[LogEntry]) -> Result<Vec<StoreOutcome>, StoreError> {
        let connection = &*self.connection;
        connection.check_writable()?;
        let Plan { inserts, rejected } = insert::plan(&connection.options().collection, entries)?;
        let mut outcomes = vec![StoreOutcome::Stored; entries.len()];
        for (index, rejection) in rejected {
            outcomes[index] = StoreOutcome::Rejected(rejection);
        }
        let mut refused = Vec::new();
        for insert in inserts {
            let database = connection.database()?;
            let (command, sent) = (insert.command, insert.entries.len());
            let response =
                operation::write(async move { database.run_raw_command(command).await }).await?;
            for (document, refusal) in insert::refusals(&response, sent)? {
                refused.push((insert.entries[document], refusal));
            }
        }
        if !refused.is_empty() {
            duplicates::resolve(connection, entries, refused, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn find(&self, query: &LogQuery) -> Result<Page, ReadError> {
        let collection = self.connection.collection(&self.connection.options().collection)?;
        let filter = filter::of_query(query);
        let direction = match query.order {
            Order::Descending => -1,
            Order::Ascending => 1,
        };
        let (skip, rows) = (query.skipped_rows(), query.limit.saturating_add(1));
        let entries = operation::read(async move {
            let mut cursor = collection
                .find(filter)
                .sort(doc! { "timestamp": direction, "_id": direction })
                .skip(skip)
                .limit(i64::from(rows))
                .batch_size(rows)
                .collation(filter::by_bytes())
                .max_time(MAX_READ_TIME)
                .await?;
            let mut entries = Vec::new();
            while cursor.advance().await? {
                entries.extend(decode_or_skip(cursor.current()));
            }
            Ok(entries)
        })
        .await?;
        Ok(Page::from_one_more(entries, query.limit))
    }

    /// Reads with a majority, so a returned entry is durable.
    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        let collection = self.connection.collection(&self.connection.options().collection)?;
        let entry = operation::read(async move {
            let document = collection
                .find_one(doc! { "_id": ObjectId::from_bytes(*id.as_bytes()) })
                .read_concern(ReadConcern::majority())
                .max_time(MAX_READ_TIME)
                .await?;
            Ok(document.and_then(|document| decode_or_skip(&document)))
        })
        .await?;
        Ok(entry)
    }

    fn health(&self) -> PartHealth {
        self.connection.health()
    }
}

/// Decodes a document, or logs a warning if it is not an event. One such
/// document does not fail the whole page.
fn decode_or_skip(document: &RawDocument) -> Option<LogEntry> {
    match decode::entry(document) {
        Ok(entry) => Some(entry),
        Err(reason) => {
            let id = document.get("_id").ok().flatten();
            tracing::warn!(?id, reason, "skipped a document that is not an event");
            None
        }
    }
}
