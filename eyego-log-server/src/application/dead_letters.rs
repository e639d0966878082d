//! What could not be stored: lists it, and stores it after all once what was in
//! the way is mended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::query::{Cursor, Order};
use eyego_log_core::{LogId, Timestamp};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::decode;
use crate::domain::dead_letter::{DeadLetter, DeadLetterQuery, DeadLetterSummary, DeadLetters};
use crate::domain::repository::{LogRepository, ReadError, Rejection, StoreError, StoreOutcome};

/// Letters that one replay works at most.
const MAX_LETTERS: usize = 10_000;

/// How long one replay works at most.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Letters that are looked up at once.
const PAGE: usize = 500;

/// Letters in work at once: each has its bytes in memory, up to 15 MiB.
const AT_ONCE: usize = 8;

/// The use case.
pub struct DeadLetterService {
    letters: Arc<dyn DeadLetters>,
    repository: Arc<dyn LogRepository>,
}

impl std::fmt::Debug for DeadLetterService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterService").finish_non_exhaustive()
    }
}

/// Some letters, in order.
#[derive(Debug)]
pub struct LettersPage {
    /// The letters.
    pub letters: Vec<DeadLetterSummary>,
    /// The place of the last of them, if there are more after it.
    pub next: Option<Cursor>,
}

/// Which letters to store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    Id(LogId),
    /// Those with this code.
    Code(String),
    /// All.
    All,
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Letters that are stored now and no letters any more.
    pub replayed: u64,
    /// Letters that failed again.
    pub failed: u64,
    /// Letters of the selection that are left, those that failed included.
    pub remaining: u64,
}

/// Why a replay did not come to its end. What it stored until then stays
/// stored; to replay again is safe.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such letter.
    #[error("no dead letter has the id {0}")]
    NotFound(LogId),
    /// Only the beginning of the record is kept.
    #[error("only the beginning of the dead letter {id} is kept (it had {size} bytes)")]
    Cut {
        /// The letter.
        id: LogId,
        /// The size of the whole record.
        size: u64,
    },
    /// The letters could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store, or the letters beside it, cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of one letter.
enum Fate {
    Stored,
    Failed,
    /// Somebody else has worked it meanwhile.
    Gone,
}

impl DeadLetterService {
    /// Works these letters into this store.
    #[must_use]
    pub fn new(letters: Arc<dyn DeadLetters>, repository: Arc<dyn LogRepository>) -> Self {
        Self { letters, repository }
    }

    /// The letters that match.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn page(&self, query: DeadLetterQuery) -> Result<LettersPage, ReadError> {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let one_more = DeadLetterQuery { limit: query.limit.saturating_add(1), ..query };
        let mut letters = self.letters.list(&one_more).await?;
        let has_more = letters.len() > limit;
        letters.truncate(limit);
        let next = if has_more { letters.last().map(place) } else { None };
        Ok(LettersPage { letters, next })
    }

    /// One letter.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn one(&self, id: LogId) -> Result<Option<DeadLetter>, ReadError> {
        self.letters.get(id).await
    }

    /// Stores letters, straight from what is kept of them, under their events'
    /// ids: one that the worker stored meanwhile is a duplicate. A letter is
    /// removed only when the store has acknowledged it; one that fails again
    /// counts an attempt more.
    ///
    /// # Errors
    /// It did not come to its end.
    pub async fn replay(&self, selection: Selection) -> Result<Replayed, ReplayError> {
        match selection {
            Selection::Id(id) => self.replay_one(id).await,
            Selection::Code(code) => self.replay_all(Some(code)).await,
            Selection::All => self.replay_all(None).await,
        }
    }

    async fn replay_one(&self, id: LogId) -> Result<Replayed, ReplayError> {
        let letter = self.letters.get(id).await?.ok_or(ReplayError::NotFound(id))?;
        if let Some(size) = letter.summary.truncated_from {
            return Err(ReplayError::Cut { id, size });
        }
        Ok(match self.work(letter).await? {
            Fate::Stored | Fate::Gone => Replayed { replayed: 1, failed: 0, remaining: 0 },
            Fate::Failed => Replayed { replayed: 0, failed: 1, remaining: 1 },
        })
    }

    /// The earliest failure first: what fails again goes to the end, so that
    /// call after call comes to all of them.
    async fn replay_all(&self, code: Option<String>) -> Result<Replayed, ReplayError> {
        let deadline = Instant::now() + MAX_TIME;
        let mut query =
            DeadLetterQuery { code: code.clone(), order: Order::Ascending, ..Default::default() };
        let mut outcome = Replayed { replayed: 0, failed: 0, remaining: 0 };
        let mut tried = HashSet::new();
        while tried.len() < MAX_LETTERS {
            query.limit = u32::try_from(PAGE.min(MAX_LETTERS - tried.len())).unwrap_or(u32::MAX);
            let Ok(page) = timeout_at(deadline, self.letters.list(&query)).await else { break };
            let page = page?;
            let Some(last) = page.last() else { break };
            query.after = Some(place(last));
            let new: Vec<_> =
                page.iter().map(|letter| letter.id).filter(|id| tried.insert(*id)).collect();
            let mut fates = stream::iter(new).map(|id| self.take_up(id)).buffer_unordered(AT_ONCE);
            // What is cut off by the deadline is stored at most, not removed.
            while let Ok(Some(fate)) = timeout_at(deadline, fates.next()).await {
                match fate? {
                    Fate::Stored => outcome.replayed += 1,
                    Fate::Failed => outcome.failed += 1,
                    Fate::Gone => {}
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        outcome.remaining = self.letters.count(code.as_deref()).await?;
        Ok(outcome)
    }

    async fn take_up(&self, id: LogId) -> Result<Fate, ReplayError> {
        match self.letters.get(id).await? {
            Some(letter) => self.work(letter).await,
            None => Ok(Fate::Gone),
        }
    }

    async fn work(&self, letter: DeadLetter) -> Result<Fate, ReplayError> {
        let id = letter.summary.id;
        match self.store(&letter).await? {
            Ok(()) => {
                self.letters.remove(id).await?;
                tracing::info!(%id, "a dead letter is stored");
                Ok(Fate::Stored)
            }
            Err(rejection) => {
                self.fail(letter, rejection).await?;
                Ok(Fate::Failed)
            }
        }
    }

    /// Stores the event of a letter, or says why it fails again.
    async fn store(&self, letter: &DeadLetter) -> Result<Result<(), Rejection>, StoreError> {
        let DeadLetterSummary { id, truncated_from, queued_at, code, message, .. } =
            &letter.summary;
        let refused =
            |code: String, message: String| Ok(Err(Rejection { code, message, is_known: true }));
        if truncated_from.is_some() {
            return refused(code.clone(), message.clone());
        }
        let entry = match decode::entry(&letter.raw, *queued_at, || *id) {
            Ok(entry) => entry,
            Err(rejection) => return Ok(Err(rejection)),
        };
        match self.repository.store(&[entry]).await {
            Ok(outcomes) => match outcomes.into_iter().next() {
                Some(StoreOutcome::Stored) => Ok(Ok(())),
                Some(StoreOutcome::Duplicate { conflicting }) => {
                    if conflicting {
                        tracing::warn!(
                            %id,
                            "another log is stored under this id; the first one stays"
                        );
                    }
                    Ok(Ok(()))
                }
                Some(StoreOutcome::Rejected(rejection)) => Ok(Err(rejection)),
                None => Err(StoreError::Transient("the store gave no outcome".to_owned())),
            },
            Err(StoreError::Unknown { code, message }) => refused(code, message),
            Err(error) => Err(error),
        }
    }

    async fn fail(&self, mut letter: DeadLetter, rejection: Rejection) -> Result<(), StoreError> {
        let summary = &mut letter.summary;
        summary.code = rejection.code;
        summary.message = rejection.message;
        summary.attempts = summary.attempts.saturating_add(1);
        summary.failed_at = Timestamp::from(std::time::SystemTime::now());
        self.letters.put(&letter).await
    }
}

fn place(letter: &DeadLetterSummary) -> Cursor {
    Cursor { timestamp: letter.failed_at, id: letter.id }
}
