//! [`LogRepository`] in MongoDB.

use std::sync::Arc;

use async_trait::async_trait;
use bson::raw::RawDocument;
use bson::{doc, oid::ObjectId};
use eyego_log_core::query::Order;
use eyego_log_core::{LogEntry, LogId, LogQuery};

use super::connection::MongoConnection;
use super::decode::Undecodable;
use super::insert::{self, Plan};
use super::operation::{self, MAX_READ_TIME};
use super::{duplicates, filter, large, stats};
use crate::domain::health::PartHealth;
use crate::domain::read::{Page, PageBuilder, ReadError, ReadMemory};
use crate::domain::repository::{LogRepository, StoreError, StoreOutcome};
use crate::domain::stats::{Stats, StatsQuery};
use crate::infrastructure::repository::limits::ReadKind;

/// Size in bytes above which a document is worth a break after it.
const LARGE_DOCUMENT: usize = 64 << 10;

/// Log entries in MongoDB.
#[derive(Debug, Clone)]
pub struct MongoRepository {
    pub(super) connection: Arc<MongoConnection>,
}

impl MongoRepository {
    /// Creates the repository of this connection.
    #[must_use]
    pub fn new(connection: Arc<MongoConnection>) -> Self {
        Self { connection }
    }

    /// Decodes a document, or logs a warning if it is not an event or is too large. One
    /// such document does not fail the whole page.
    async fn decode_or_skip(&self, document: &RawDocument) -> Result<Option<LogEntry>, ReadError> {
        match large::decode(&self.connection, document).await? {
            Ok(entry) => Ok(Some(entry)),
            Err(error) => {
                self.connection.warn_skipped(document, &error.to_string());
                Ok(None)
            }
        }
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

    async fn find(&self, query: &LogQuery, memory: Arc<dyn ReadMemory>) -> Result<Page, ReadError> {
        let connection = &*self.connection;
        let _permit = connection.limits().acquire(ReadKind::of(query)).await?;
        let collection = connection.read_from(&connection.options().collection)?;
        let direction = match query.order {
            Order::Descending => -1,
            Order::Ascending => 1,
        };
        let rows = query.limit.saturating_add(1);
        operation::query(async {
            let mut cursor = collection
                .find(filter::of_query(query))
                .sort(doc! { "timestamp": direction, "_id": direction })
                .skip(query.skipped_rows())
                .limit(i64::from(rows))
                .batch_size(operation::batch_size(rows))
                .collation(filter::by_bytes())
                .max_time(MAX_READ_TIME)
                .await?;
            let mut page = PageBuilder::new(query.limit, &*memory);
            let mut left = rows;
            while cursor.advance().await? {
                left -= 1;
                if let Some(entry) = self.decode_or_skip(cursor.current()).await?
                    && page.push(entry)?.is_break()
                {
                    break;
                }
                if cursor.current().as_bytes().len() > LARGE_DOCUMENT {
                    // Decoding a batch of them takes long.
                    tokio::task::yield_now().await;
                }
            }
            if left == 0 {
                // Skipped documents may hide that more events follow.
                page.expect_more();
            }
            Ok(page.finish())
        })
        .await
    }

    async fn stats(
        &self,
        query: &StatsQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Stats, ReadError> {
        stats::stats(&self.connection, query, &*memory).await
    }

    /// Reads with a majority, so a returned entry is durable.
    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        let connection = &*self.connection;
        let _permit = connection.limits().acquire(ReadKind::ById).await?;
        let collection = connection.read_from(&connection.options().collection)?;
        operation::query(async {
            let id = ObjectId::from_bytes(*id.as_bytes());
            let Some(found) = large::find_by_id(connection, &collection, id).await? else {
                return Ok(None);
            };
            match large::decode_found(found).await? {
                Ok(entry) => Ok(Some(entry)),
                Err(Undecodable::TooLarge) => Err(ReadError::TooLarge.into()),
                Err(Undecodable::NotAnEvent(reason)) => {
                    tracing::debug!(%id, reason, "the document is not an event");
                    Ok(None)
                }
            }
        })
        .await
    }

    fn health(&self) -> PartHealth {
        self.connection.health()
    }
}
