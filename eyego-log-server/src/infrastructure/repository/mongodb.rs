//! The store on MongoDB: the logs, and the dead letters beside them, over one
//! client.
//!
//! | file | what |
//! |---|---|
//! | `connection` | the client, its settings, how operations run on it |
//! | `watch`, `indexes` | how MongoDB is, and the indexes, in the background |
//! | `store`, `insert`, `encode` | entries on their way in |
//! | `find`, `filter`, `metadata_filter`, `decode`, `json` | and out |
//! | `dead_letters` | the letters |
//! | `failure` | what each error means: one table |

mod connection;
mod dead_letters;
mod decode;
mod encode;
mod failure;
mod filter;
mod find;
mod indexes;
mod insert;
mod json;
mod metadata_filter;
mod store;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use eyego_log_core::{LogEntry, LogId, LogQuery};

pub use self::connection::{InvalidUri, MongoConnection, MongoOptions};
pub use self::dead_letters::MongoDeadLetters;
use crate::domain::health::PartHealth;
use crate::domain::repository::{LogRepository, Page, ReadError, StoreError, StoreOutcome};

/// Logs in MongoDB.
#[derive(Debug, Clone)]
pub struct MongoRepository {
    connection: Arc<MongoConnection>,
}

impl MongoRepository {
    /// The logs of this connection.
    #[must_use]
    pub fn new(connection: Arc<MongoConnection>) -> Self {
        Self { connection }
    }
}

#[async_trait]
impl LogRepository for MongoRepository {
    async fn store(&self, entries: &[LogEntry]) -> Result<Vec<StoreOutcome>, StoreError> {
        store::store(&self.connection, entries).await
    }

    async fn find(&self, query: &LogQuery) -> Result<Page, ReadError> {
        find::find(&self.connection, query).await
    }

    async fn get(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        find::get(&self.connection, id).await
    }

    fn health(&self) -> PartHealth {
        self.connection.health()
    }
}
