//! Writes the dead letters of a bulk. None replaces another record: an event
//! whose id is taken by a different dead letter gets an id of its own.

use std::time::{Instant, SystemTime};

use eyego_log_core::{LogEntry, LogId, Timestamp};
use futures_util::{StreamExt, stream};

use super::batcher::BulkRecord;
use super::bulk::{Settler, Unstorable};
use super::status::Tally;
use crate::application::removal::SkipReason;
use crate::application::{decode, identity};
use crate::domain::dead_letter::{DeadLetter, DeadLetterSummary};
use crate::domain::repository::{Rejection, StoreError, is_conflict};

/// Number of dead letters that a bulk writes concurrently, so that the store can
/// commit them in groups.
const CONCURRENCY: usize = 8;

impl Settler {
    pub(super) fn dead_letter(
        &self,
        record: &BulkRecord<'_>,
        id: LogId,
        rejection: Rejection,
        attempts: u32,
    ) -> DeadLetter {
        let summary = DeadLetterSummary {
            id,
            truncated_from: None,
            user_id: None,
            topic: self.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            queued_at: record.queued_at,
            code: rejection.code,
            message: rejection.message,
            attempts,
            failed_at: Timestamp::from(SystemTime::now()),
        };
        DeadLetter { summary, raw: record.value.unwrap_or_default().to_vec() }
    }

    /// Stores dead letters, retrying without limit: a record is settled only once
    /// its dead letter is durable.
    pub(super) async fn put_dead_letters(&self, records: Vec<Unstorable>, tally: &mut Tally) {
        let mut writing =
            stream::iter(records).map(|record| self.put(record)).buffer_unordered(CONCURRENCY);
        while let Some(written) = writing.next().await {
            let Some(summary) = written else {
                tally.skipped.add(SkipReason::Erased);
                continue;
            };
            let DeadLetterSummary { id, code, message, partition, offset, .. } = &summary;
            if let Some(count) = self.status.repeated().note(code, 1, Instant::now()) {
                tracing::warn!(%id, code, message, partition, offset, count, "a record cannot be stored and becomes a dead letter");
            }
            tally.dead_letters.push(summary.code);
        }
    }

    /// Returns `None` if the user of the record is erased.
    async fn put(&self, record: Unstorable) -> Option<DeadLetterSummary> {
        let Unstorable { mut dead_letter, entry } = record;
        if let Some(entry) = &entry
            && self.is_taken(&dead_letter, entry).await
        {
            dead_letter.summary.id = identity::of_conflict(entry);
        }
        if !self.put_durably(&dead_letter).await {
            return None;
        }
        // Another worker may have written a different record under the id since.
        if let Some(entry) = &entry
            && dead_letter.summary.id == entry.id
            && self.is_taken(&dead_letter, entry).await
        {
            dead_letter.summary.id = identity::of_conflict(entry);
            if !self.put_durably(&dead_letter).await {
                return None;
            }
        }
        Some(dead_letter.summary)
    }

    /// Returns `false` if the dead letter must not be stored.
    async fn put_durably(&self, dead_letter: &DeadLetter) -> bool {
        let mut attempt = 1;
        loop {
            match self.put_unless_erased(dead_letter).await {
                Ok(is_put) => return is_put,
                Err(error) => self.back_off(&error, attempt).await,
            }
            attempt += 1;
        }
    }

    async fn put_unless_erased(&self, dead_letter: &DeadLetter) -> Result<bool, StoreError> {
        if self.store.is_erased(dead_letter).await? {
            return Ok(false);
        }
        self.dead_letters.put(dead_letter).await?;
        Ok(true)
    }

    /// Returns `true` if a dead letter of a different event has the id.
    async fn is_taken(&self, dead_letter: &DeadLetter, entry: &LogEntry) -> bool {
        let mut attempt = 1;
        loop {
            match self.dead_letters.get(dead_letter.summary.id).await {
                Ok(kept) => {
                    return kept.is_some_and(|kept| differs(&kept, &dead_letter.raw, entry));
                }
                Err(error) => {
                    self.back_off(&StoreError::Transient(error.to_string()), attempt).await;
                }
            }
            attempt += 1;
        }
    }
}

/// Returns `true` if the kept dead letter has different content than the event
/// in `raw`.
fn differs(kept: &DeadLetter, raw: &[u8], entry: &LogEntry) -> bool {
    let DeadLetterSummary { id, queued_at, truncated_from, .. } = &kept.summary;
    let size = truncated_from.unwrap_or(kept.raw.len() as u64);
    if raw.len() as u64 == size && raw.starts_with(&kept.raw) {
        return false;
    }
    match decode::entry(&kept.raw, *queued_at, || *id) {
        Ok(kept) => is_conflict(&kept, entry),
        Err(_) => true,
    }
}
