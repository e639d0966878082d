//! From the store to the caller.

use std::sync::Arc;

use eyego_log_core::query::Start;
use eyego_log_core::wire::{LogsPage, Status};
use eyego_log_core::{LogEntry, LogId, LogQuery};

use crate::domain::repository::{LogRepository, ReadError};

/// The use case.
pub struct Retrieve {
    repository: Arc<dyn LogRepository>,
}

impl std::fmt::Debug for Retrieve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retrieve").finish_non_exhaustive()
    }
}

impl Retrieve {
    /// Retrieves from this store.
    #[must_use]
    pub fn new(repository: Arc<dyn LogRepository>) -> Self {
        Self { repository }
    }

    /// The page that a query asks for.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn page(&self, query: &LogQuery) -> Result<LogsPage, ReadError> {
        let page = self.repository.find(query).await?;
        Ok(LogsPage {
            status: Status::Success,
            results: page.entries.len(),
            page: match query.start {
                Start::Page(page) => page,
                Start::After(_) => 1,
            },
            data: page.entries,
            next_cursor: page.next.map(|cursor| cursor.to_string()),
        })
    }

    /// One log.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn one(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        self.repository.get(id).await
    }
}
