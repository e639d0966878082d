//! Requests erasures, and shows their state.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eyego_log_core::{LogId, LogIdGenerator, Timestamp, UserId};

use crate::domain::erasure::{Erasure, ErasureQuery, Erasures, Removed};
use crate::domain::read::{Page, PageBuilder, PageItem as _, ReadError, ReadMemory};
use crate::domain::repository::StoreError;

/// Maximum time for which a request waits for the store. The embedded store can be
/// busy longer, while it writes its whole file anew.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// Maximum number of erasures that are read at a time.
const MAX_LISTED: u32 = 64;

/// Requests and lists erasures. The [`Remover`](super::Remover) carries them out.
pub struct ErasureService {
    erasures: Arc<dyn Erasures>,
    ids: LogIdGenerator,
}

impl fmt::Debug for ErasureService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErasureService").finish_non_exhaustive()
    }
}

impl ErasureService {
    /// Creates a service that records erasures in `erasures`.
    #[must_use]
    pub fn new(erasures: Arc<dyn Erasures>) -> Self {
        Self { erasures, ids: LogIdGenerator::new() }
    }

    /// Records that every event of the user that was received until now is to be
    /// removed. Returns once the request is durable.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown. Requesting it again is safe.
    pub async fn request(&self, user_id: UserId) -> Result<Erasure, StoreError> {
        let now = Timestamp::from(SystemTime::now());
        // Times have a resolution of one millisecond. An event that was received in
        // this one is erased; one that is sent after the response is kept.
        let requested_at = Timestamp::from_millis_clamped(now.as_millis() + 1);
        let id = self.ids.generate(now);
        let removed = Removed::default();
        let erasure = Erasure { id, user_id, requested_at, removed, completed_at: None };
        in_time(self.erasures.record(&erasure)).await?;
        tracing::info!(%id, "erasure requested");
        while Timestamp::from(SystemTime::now()) < requested_at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(erasure)
    }

    /// Returns one erasure, or `None` if none has this id.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    pub async fn get(&self, id: LogId) -> Result<Option<Erasure>, StoreError> {
        in_time(self.erasures.get(id)).await
    }

    /// Returns the page of erasures that `query` selects. It is bounded like a page of
    /// events, because a user id can be long.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query in time, or if the memory
    /// for reads is used up.
    pub async fn page(
        &self,
        mut query: ErasureQuery,
        memory: &dyn ReadMemory,
    ) -> Result<Page<Erasure>, ReadError> {
        let mut page = PageBuilder::new(query.limit, memory);
        let mut left = query.limit.saturating_add(1);
        while left > 0 {
            query.limit = left.min(MAX_LISTED);
            let listed = in_time(self.erasures.list(&query)).await;
            let listed = listed.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            let is_end = u32::try_from(listed.len()).is_ok_and(|count| count < query.limit);
            query.after = listed.last().map(Erasure::position);
            left -= query.limit;
            for erasure in listed {
                if page.push(erasure)?.is_break() {
                    return Ok(page.finish());
                }
            }
            if is_end {
                break;
            }
        }
        Ok(page.finish())
    }
}

/// Returns the result of `call`, or an error if it takes too long.
async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(MAX_WAIT, call).await.unwrap_or_else(|_| {
        let seconds = MAX_WAIT.as_secs();
        Err(StoreError::Transient(format!("the store did not respond within {seconds} s")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn call_of_a_busy_store_ends_with_an_error() {
        let error = in_time(std::future::pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(error.to_string(), "the store did not respond within 8 s");
        assert!(in_time(async { Ok(1) }).await.is_ok());
    }
}
