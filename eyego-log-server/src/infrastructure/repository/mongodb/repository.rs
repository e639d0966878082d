//! [`LogRepository`] in MongoDB.

use std::sync::Arc;

use async_trait::async_trait;
use bson::oid::ObjectId;
use eyego_log_core::{LogEntry, LogId, LogQuery};

use super::connection::MongoConnection;
use super::decode::Undecodable;
use super::insert::{self, Plan};
use super::operation;
use super::{duplicates, find, large, stats};
use crate::domain::health::PartHealth;
use crate::domain::read::{Page, ReadError, ReadMemory};
use crate::domain::repository::{LogRepository, StoreError, StoreOutcome};
use crate::domain::stats::{Stats, StatsQuery};
use crate::infrastructure::repository::limits::ReadKind;

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
        operation::query(find::find(connection, query, &*memory)).await
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
