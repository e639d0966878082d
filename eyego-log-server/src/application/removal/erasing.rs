//! Carries erasures out: two passes, then done.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use eyego_log_core::{LogId, Timestamp};
use tokio::time::Instant;

use super::origin;
use super::remover::{CHUNK, Remover, Task, pause};
use super::tombstones::MAX_AGE;
use crate::domain::erasure::{Erasure, ErasureQuery, Removed};
use crate::domain::repository::StoreError;
use crate::domain::retention::Retention;

/// Longest time that a call of the store takes to have its effect, and that a
/// MongoDB primary without a majority takes to notice it.
const MAX_STORE_CALL: Duration = Duration::from_secs(60);

/// Time after which everything that was stored with an older list of erased users
/// is in the store.
pub const SETTLED_AFTER: Duration = MAX_AGE.saturating_add(MAX_STORE_CALL);

/// How long a completed erasure is repeated, and how often: a worker that was
/// suspended in the middle of a call may store an erased event after
/// [`SETTLED_AFTER`].
const REPEATED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const REPEAT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Share of the time in which the store's files may be written anew, as the divisor of
/// one. Nothing is stored meanwhile, and a large file takes minutes.
const PURGE_SHARE: u32 = 10;

/// Number of running erasures that are carried out together.
const AT_ONCE: u32 = 1000;

/// What this process knows about the running erasures. Nothing is lost with it: the
/// next process starts again with the first pass.
#[derive(Debug, Default)]
pub(super) struct Erasing {
    /// When the first pass of each running erasure began.
    first_passes: HashMap<LogId, Instant>,
    next_repeat: Option<Instant>,
    purges: Purges,
}

impl Task for Erasing {
    const DELETES: &'static str = "the events of erased users";

    fn start(_: &Retention) -> Self {
        Self::default()
    }

    async fn step(&mut self, remover: &Remover) -> Result<(), StoreError> {
        let query = ErasureQuery { only_running: true, limit: AT_ONCE, ..Default::default() };
        let mut running = remover.erasures.list(&query).await?;
        // The oldest first, so that its receipt has the numbers if a user is erased
        // repeatedly.
        running.reverse();
        remover.status.set_running(running.len());
        self.first_passes.retain(|id, _| running.iter().any(|erasure| erasure.id == *id));
        let mut settled = Vec::new();
        for erasure in running {
            match self.first_passes.get(&erasure.id) {
                Some(began) if began.elapsed() < remover.options.settled_after => {}
                Some(_) if self.purges.is_due(Instant::now()) => {
                    remover.erase(&erasure).await?;
                    settled.push(erasure.id);
                }
                Some(_) => {}
                None => {
                    let began = Instant::now();
                    remover.erase(&erasure).await?;
                    self.first_passes.insert(erasure.id, began);
                }
            }
            if !remover.status.has_lease() {
                return Ok(());
            }
        }
        self.repeat(remover).await?;
        if !settled.is_empty() || self.purges.is_wanted(Instant::now()) {
            let began = Instant::now();
            let purged = remover.removal.purge().await;
            self.purges.note(began.elapsed(), Instant::now(), purged.is_ok());
            purged?;
        }
        for id in settled {
            remover.erasures.complete(id, SystemTime::now().into()).await?;
            tracing::info!(%id, "erasure completed");
        }
        Ok(())
    }
}

impl Erasing {
    /// Repeats the deletions of recently completed erasures, once an hour.
    async fn repeat(&mut self, remover: &Remover) -> Result<(), StoreError> {
        let now = Instant::now();
        if now < *self.next_repeat.get_or_insert(now + REPEAT_INTERVAL) {
            return Ok(());
        }
        self.next_repeat = Some(now + REPEAT_INTERVAL);
        let query = ErasureQuery { limit: AT_ONCE, ..Default::default() };
        for erasure in remover.erasures.list(&query).await? {
            let now = Timestamp::from(SystemTime::now());
            let age = erasure.completed_at.and_then(|at| now.duration_since(at));
            if age.is_some_and(|age| age <= REPEATED_FOR) {
                self.purges.has_remains |= remover.erase(&erasure).await?;
            }
        }
        Ok(())
    }
}

/// When the store's files are written anew.
#[derive(Debug, Default)]
struct Purges {
    not_before: Option<Instant>,
    /// Set if a completed erasure deleted something again.
    has_remains: bool,
}

impl Purges {
    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| now >= time)
    }

    fn is_wanted(&self, now: Instant) -> bool {
        self.has_remains && self.is_due(now)
    }

    /// Notes an attempt that took this long and ended at `now`.
    fn note(&mut self, took: Duration, now: Instant, is_done: bool) {
        self.not_before = Some(now + took * (PURGE_SHARE - 1));
        self.has_remains &= !is_done;
    }
}

impl Remover {
    /// Deletes the user's stored events and dead letters that were received before
    /// the cut-off, and counts them. Returns whether there were any.
    async fn erase(&self, erasure: &Erasure) -> Result<bool, StoreError> {
        let Erasure { id, user_id, requested_at, .. } = erasure;
        let mut has_removed = false;
        loop {
            let began = Instant::now();
            let store = self.removal.delete_of_user(user_id, *requested_at, CHUNK).await?;
            if store == 0 {
                break;
            }
            has_removed = true;
            self.status.count_erased(store);
            self.erasures.add_removed(*id, Removed { store, dead_letters: 0 }).await?;
            pause(began).await;
        }
        let mut after = None;
        loop {
            let ids = self.removal.dead_letters_of_user(user_id, after, CHUNK).await?;
            let Some(last) = ids.last() else { return Ok(has_removed) };
            after = Some(*last);
            for dead_letter in ids {
                has_removed |= self.erase_dead_letter(erasure, dead_letter).await?;
            }
        }
    }

    async fn erase_dead_letter(&self, erasure: &Erasure, id: LogId) -> Result<bool, StoreError> {
        let dead_letter = self.dead_letters.get(id).await;
        let dead_letter = dead_letter.map_err(|error| StoreError::Transient(error.to_string()))?;
        let Some(dead_letter) = dead_letter else { return Ok(false) };
        let (user_id, received_at) = origin::of(&dead_letter);
        if user_id.as_ref() != Some(&erasure.user_id) || received_at >= erasure.requested_at {
            return Ok(false);
        }
        self.dead_letters.remove(id).await?;
        self.status.count_erased_dead_letter();
        self.erasures.add_removed(erasure.id, Removed { store: 0, dead_letters: 1 }).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_written_anew_at_most_a_tenth_of_the_time() {
        let mut purges = Purges::default();
        let now = Instant::now();
        assert!(purges.is_due(now) && !purges.is_wanted(now));
        purges.has_remains = true;
        assert!(purges.is_wanted(now));
        purges.note(Duration::from_secs(60), now, false);
        assert!(!purges.is_due(now + Duration::from_secs(539)));
        assert!(purges.is_wanted(now + Duration::from_secs(540)), "it failed");
        purges.note(Duration::ZERO, now, true);
        assert!(purges.is_due(now) && !purges.is_wanted(now));
    }
}
