//! From the store to the caller.

use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::query::Start;
use eyego_log_core::wire::{LogsPage, Status};
use eyego_log_core::{LogEntry, LogId, LogQuery};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::repository::{LogRepository, ReadError, is_conflict};

/// Between two looks for a log that is on its way: the first wait, which
/// doubles, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What is known of a log that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// It can be read.
    Stored,
    /// Another log has its id, and stays.
    Lost,
    /// It is not there yet, or the store does not answer.
    NotYet,
}

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

    /// Waits until this log, which is queued, can be read; at most until the
    /// deadline.
    pub async fn wait_for(&self, entry: &LogEntry, deadline: Instant) -> Waited {
        let mut wait = FIRST_WAIT;
        loop {
            match timeout_at(deadline, self.repository.get(entry.id)).await {
                Ok(Ok(Some(stored))) if is_conflict(&stored, entry) => return Waited::Lost,
                Ok(Ok(Some(_))) => return Waited::Stored,
                // A store that does not answer may do so in time.
                Ok(Ok(None) | Err(_)) => {}
                Err(_) => return Waited::NotYet,
            }
            let next = Instant::now() + wait;
            if next >= deadline {
                sleep_until(deadline).await;
                return Waited::NotYet;
            }
            sleep_until(next).await;
            wait = (2 * wait).min(LONGEST_WAIT);
        }
    }

    /// One log.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn one(&self, id: LogId) -> Result<Option<LogEntry>, ReadError> {
        self.repository.get(id).await
    }
}
