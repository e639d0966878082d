//! Dead letters: lists the records that could not be stored, and stores them once
//! the cause is fixed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::query::Order;
use eyego_log_core::{LogId, Timestamp};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::decode;
use super::removal::{GuardedStore, Offered};
use crate::domain::dead_letter::{DeadLetter, DeadLetterQuery, DeadLetterSummary, DeadLetters};
use crate::domain::read::{Page, ReadError, ReadMemory};
use crate::domain::repository::{Rejection, StoreError, StoreOutcome};

/// Maximum number of dead letters that one call replays.
const MAX_REPLAYED: usize = 10_000;

/// Maximum duration of one replay.
const MAX_DURATION: Duration = Duration::from_secs(20);

/// Number of dead letters that a replay lists per query.
const PAGE_SIZE: usize = 500;

/// Number of dead letters that all calls together replay concurrently. Each of
/// them holds its bytes, up to 15 MiB, in memory.
const CONCURRENCY: usize = 8;

/// Lists and replays dead letters.
pub struct DeadLetterService {
    dead_letters: Arc<dyn DeadLetters>,
    store: GuardedStore,
    replays: Semaphore,
}

impl std::fmt::Debug for DeadLetterService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterService").finish_non_exhaustive()
    }
}

/// Selects the dead letters to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The one with this id.
    Id(LogId),
    /// Those with this code.
    Code(String),
    /// All.
    All,
}

/// Result of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Dead letters that are now stored and removed.
    pub replayed: u64,
    /// Dead letters that failed again.
    pub failed: u64,
    /// Selected dead letters that remain, including those that failed again.
    pub remaining: u64,
}

/// The reason a dead letter cannot be shown, or a replay did not complete.
///
/// Events that the replay has stored stay stored, and replaying again is safe.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// No dead letter has this id.
    #[error("no dead letter has the id {0}")]
    NotFound(LogId),
    /// Only the beginning of the record was kept.
    #[error(
        "the dead letter {id} cannot be replayed: only the beginning of its {size} bytes is kept"
    )]
    Truncated {
        /// Id of the dead letter.
        id: LogId,
        /// Size of the whole record, in bytes.
        size: u64,
    },
    /// The dead letters cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The events or the dead letters cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Outcome of replaying one dead letter.
enum Outcome {
    Stored,
    Failed,
    /// Another call has replayed and removed it in the meantime.
    AlreadyGone,
    /// Its event is expired or erased.
    Dropped,
}

impl DeadLetterService {
    /// Creates a service that replays `dead_letters` into `store`.
    #[must_use]
    pub fn new(dead_letters: Arc<dyn DeadLetters>, store: GuardedStore) -> Self {
        Self { dead_letters, store, replays: Semaphore::new(CONCURRENCY) }
    }

    /// Returns the page of dead letters that `query` selects.
    ///
    /// # Errors
    /// Returns an error if the store cannot execute the query.
    pub async fn page(
        &self,
        query: &DeadLetterQuery,
        memory: Arc<dyn ReadMemory>,
    ) -> Result<Page<DeadLetterSummary>, ReadError> {
        self.dead_letters.list(query, memory).await
    }

    /// Returns one dead letter.
    ///
    /// # Errors
    /// Returns [`DeadLetterError::NotFound`] if no dead letter has this id, or
    /// [`DeadLetterError::Read`] if the store cannot execute the query.
    pub async fn get(&self, id: LogId) -> Result<DeadLetter, DeadLetterError> {
        self.dead_letters.get(id).await?.ok_or(DeadLetterError::NotFound(id))
    }

    /// Stores dead letters from their original bytes, under the ids of their
    /// events. An event that was stored in the meantime is a duplicate. If
    /// another event is stored under its id, it fails with `id_conflict`. One that is
    /// expired or whose user is erased is removed without being stored, and not
    /// counted.
    ///
    /// A dead letter is removed only after the store has acknowledged its event.
    /// If it fails again, its number of attempts increases by one. One call
    /// replays up to 10,000 dead letters and runs for up to 20 seconds.
    ///
    /// # Errors
    /// Returns an error if the replay did not complete. Replaying again is safe.
    pub async fn replay(&self, selection: Selection) -> Result<Replayed, DeadLetterError> {
        match selection {
            Selection::Id(id) => self.replay_id(id).await,
            Selection::Code(code) => self.replay_all(Some(code)).await,
            Selection::All => self.replay_all(None).await,
        }
    }

    async fn replay_id(&self, id: LogId) -> Result<Replayed, DeadLetterError> {
        let dead_letter = self.get(id).await?;
        if let Some(size) = dead_letter.summary.truncated_from {
            return Err(DeadLetterError::Truncated { id, size });
        }
        Ok(match self.replay_one(dead_letter).await? {
            Outcome::Stored | Outcome::AlreadyGone => {
                Replayed { replayed: 1, failed: 0, remaining: 0 }
            }
            Outcome::Failed => Replayed { replayed: 0, failed: 1, remaining: 1 },
            Outcome::Dropped => Replayed { replayed: 0, failed: 0, remaining: 0 },
        })
    }

    /// Starts with the earliest failure. A dead letter that fails again moves to
    /// the end, so repeated calls reach all of them.
    async fn replay_all(&self, code: Option<String>) -> Result<Replayed, DeadLetterError> {
        let deadline = Instant::now() + MAX_DURATION;
        let mut query =
            DeadLetterQuery { code: code.clone(), order: Order::Ascending, ..Default::default() };
        let mut result = Replayed { replayed: 0, failed: 0, remaining: 0 };
        let mut tried = HashSet::new();
        while tried.len() < MAX_REPLAYED {
            let limit = PAGE_SIZE.min(MAX_REPLAYED - tried.len());
            query.limit = u32::try_from(limit).unwrap_or(u32::MAX);
            let listing = self.dead_letters.list(&query, Arc::new(OnePage));
            let Ok(page) = timeout_at(deadline, listing).await else {
                break;
            };
            let Page { entries, next } = page?;
            let ids = entries.into_iter().map(|summary| summary.id);
            let untried: Vec<_> = ids.filter(|id| tried.insert(*id)).collect();
            let mut outcomes = stream::iter(untried)
                .map(|id| self.replay_listed(id))
                .buffer_unordered(CONCURRENCY);
            // A replay that the deadline interrupts may have stored its event, but it
            // has not removed the dead letter.
            while let Ok(Some(outcome)) = timeout_at(deadline, outcomes.next()).await {
                match outcome? {
                    Outcome::Stored => result.replayed += 1,
                    Outcome::Failed => result.failed += 1,
                    Outcome::AlreadyGone | Outcome::Dropped => {}
                }
            }
            if next.is_none() || Instant::now() >= deadline {
                break;
            }
            query.after = next;
        }
        tracing::info!(replayed = result.replayed, failed = result.failed, "replayed dead letters");
        result.remaining = self.dead_letters.count(code.as_deref()).await?;
        Ok(result)
    }

    async fn replay_listed(&self, id: LogId) -> Result<Outcome, DeadLetterError> {
        // Fails only if the semaphore is closed, which it never is.
        let _permit = self.replays.acquire().await;
        match self.dead_letters.get(id).await? {
            Some(dead_letter) => self.replay_one(dead_letter).await,
            None => Ok(Outcome::AlreadyGone),
        }
    }

    async fn replay_one(&self, dead_letter: DeadLetter) -> Result<Outcome, DeadLetterError> {
        let id = dead_letter.summary.id;
        if self.store.is_erased(&dead_letter).await? {
            return self.drop_dead_letter(id).await;
        }
        match self.offer(&dead_letter).await? {
            Ok(Offered::Skipped(_)) => self.drop_dead_letter(id).await,
            Ok(Offered::Store(_)) => {
                self.dead_letters.remove(id).await?;
                tracing::debug!(%id, "replayed a dead letter");
                Ok(Outcome::Stored)
            }
            Err(rejection) => {
                self.put_failed(dead_letter, rejection).await?;
                Ok(Outcome::Failed)
            }
        }
    }

    async fn drop_dead_letter(&self, id: LogId) -> Result<Outcome, DeadLetterError> {
        self.dead_letters.remove(id).await?;
        tracing::info!(%id, "removed a dead letter whose event is expired or erased");
        Ok(Outcome::Dropped)
    }

    /// Stores the event of a dead letter. The inner result is the reason it was
    /// rejected again.
    async fn offer(
        &self,
        dead_letter: &DeadLetter,
    ) -> Result<Result<Offered, Rejection>, StoreError> {
        let DeadLetterSummary { id, truncated_from, queued_at, code, message, .. } =
            &dead_letter.summary;
        let rejected =
            |code: String, message: String| Ok(Err(Rejection { code, message, is_known: true }));
        if truncated_from.is_some() {
            return rejected(code.clone(), message.clone());
        }
        let entry = match decode::entry(&dead_letter.raw, *queued_at, || *id) {
            Ok(entry) => entry,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let event_id = entry.id;
        match self.store.store(&[entry]).await {
            Ok(outcomes) => match outcomes.into_iter().next() {
                Some(Offered::Store(StoreOutcome::Duplicate { conflicting: true })) => {
                    Ok(Err(Rejection::id_conflict(event_id)))
                }
                Some(Offered::Store(StoreOutcome::Rejected(rejection))) => Ok(Err(rejection)),
                Some(offered) => Ok(Ok(offered)),
                None => Err(StoreError::Transient("the store returned no outcome".to_owned())),
            },
            Err(StoreError::Unknown { code, message }) => rejected(code, message),
            Err(error @ (StoreError::Transient(_) | StoreError::Operator(_))) => Err(error),
        }
    }

    async fn put_failed(
        &self,
        mut dead_letter: DeadLetter,
        rejection: Rejection,
    ) -> Result<(), StoreError> {
        let summary = &mut dead_letter.summary;
        summary.code = rejection.code;
        summary.message = rejection.message;
        summary.attempts = summary.attempts.saturating_add(1);
        summary.failed_at = Timestamp::from(std::time::SystemTime::now());
        self.dead_letters.put(&dead_letter).await
    }
}

/// The memory of a page that a replay reads and never writes out.
struct OnePage;

impl ReadMemory for OnePage {
    fn reserve(&self, _bytes: usize) -> Result<(), ReadError> {
        Ok(())
    }
}
