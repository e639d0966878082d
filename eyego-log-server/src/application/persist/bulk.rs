//! Settles one bulk: every record of it is stored, known to be stored already,
//! a dead letter, or skipped, and only then is the bulk done.

use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::{LogEntry, LogId, Timestamp};

use super::batcher::{Bulk, BulkRecord};
use super::retry::Backoff;
use super::status::{Tally, WorkerStatus};
use crate::application::{decode, identity};
use crate::domain::dead_letter::{DeadLetter, DeadLetterSummary, DeadLetters};
use crate::domain::repository::{LogRepository, Rejection, StoreError, StoreOutcome};

/// Between two attempts while the store cannot be reached.
const TRANSIENT: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

/// Between two attempts while somebody has to mend something.
const OPERATOR: Duration = Duration::from_secs(5);

/// An entry that alone is refused by an unknown code is tried this often before
/// it counts as the culprit.
const ATTEMPTS_OF_A_CULPRIT: u32 = 3;

/// What settling needs.
pub(super) struct Settler {
    pub(super) repository: Arc<dyn LogRepository>,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    pub(super) status: Arc<WorkerStatus>,
    /// The name of the queue: part of a derived id.
    pub(super) topic: String,
}

/// An entry of a bulk, with the place of its record there.
type Placed = (usize, LogEntry);

impl Settler {
    /// Returns when the fate of every record is durable, and what it is.
    /// Retries for ever.
    pub(super) async fn settle(&self, bulk: &Bulk) -> Tally {
        let mut tally = Tally::default();
        let mut entries = Vec::with_capacity(bulk.len());
        let mut places = Vec::with_capacity(bulk.len());
        for (place, record) in bulk.iter().enumerate() {
            match self.decode(&record) {
                Decoded::Entry(entry) => {
                    entries.push(entry);
                    places.push(place);
                }
                Decoded::Nothing => tally.skipped += 1,
                Decoded::Poison(letter) => self.keep_letter(*letter, &mut tally).await,
            }
        }
        let records: Vec<BulkRecord<'_>> = bulk.iter().collect();
        let rejected = self.store(entries, &places, &mut tally).await;
        for ((place, entry), rejection, attempts) in rejected {
            let mut letter = self.letter(&records[place], entry.id, rejection, attempts);
            letter.summary.user_id = Some(entry.user_id.to_string());
            self.keep_letter(letter, &mut tally).await;
        }
        tally
    }

    fn decode(&self, record: &BulkRecord<'_>) -> Decoded {
        let Some(value) = record.value else { return Decoded::Nothing };
        let derived = || {
            let BulkRecord { partition, offset, queued_at, .. } = *record;
            identity::of_position(&self.topic, partition, offset, queued_at, value)
        };
        match decode::entry(value, record.queued_at, derived) {
            Ok(entry) => Decoded::Entry(entry),
            Err(rejection) => {
                Decoded::Poison(Box::new(self.letter(record, derived(), rejection, 1)))
            }
        }
    }

    /// Stores entries, part by part where the store refuses them as a whole.
    /// Answers those that it will never take.
    async fn store(
        &self,
        entries: Vec<LogEntry>,
        places: &[usize],
        tally: &mut Tally,
    ) -> Vec<(Placed, Rejection, u32)> {
        let mut rejected = Vec::new();
        let mut suspects = Vec::new();
        let stored_before = self.status.known_stored();
        let mut parts = Vec::new();
        parts.push(0..entries.len());
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.store_part(&entries[part.clone()], tally).await {
                Ok(rejections) => {
                    for (index, rejection) in rejections {
                        let at = part.start + index;
                        let list = if rejection.is_known { &mut rejected } else { &mut suspects };
                        list.push((at, rejection));
                    }
                }
                Err(rejection) if part.len() == 1 => suspects.push((part.start, rejection)),
                Err(_) => {
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
        }
        let mut entries: Vec<Option<LogEntry>> = entries.into_iter().map(Some).collect();
        let mut take = |at: usize| entries[at].take().map(|entry| (places[at], entry));
        let mut letters: Vec<_> = rejected
            .into_iter()
            .filter_map(|(at, rejection)| Some((take(at)?, rejection, 1)))
            .collect();
        for (at, rejection) in suspects {
            let Some(placed) = take(at) else { continue };
            if let Some(verdict) = self.judge(&placed.1, rejection, stored_before, tally).await {
                letters.push((placed, verdict.0, verdict.1));
            }
        }
        letters
    }

    /// Stores entries; retries what passes and what somebody has to mend. An
    /// error is a refusal of the whole call, by a code that nobody knows.
    async fn store_part(
        &self,
        entries: &[LogEntry],
        tally: &mut Tally,
    ) -> Result<Vec<(usize, Rejection)>, Rejection> {
        let mut attempt = 1;
        loop {
            match self.repository.store(entries).await {
                Ok(outcomes) => return Ok(self.note(entries, outcomes, tally)),
                Err(StoreError::Unknown { code, message }) => {
                    return Err(Rejection { code, message, is_known: false });
                }
                Err(error) => self.wait_after(&error, attempt).await,
            }
            attempt += 1;
        }
    }

    fn note(
        &self,
        entries: &[LogEntry],
        outcomes: Vec<StoreOutcome>,
        tally: &mut Tally,
    ) -> Vec<(usize, Rejection)> {
        let now = Timestamp::from(std::time::SystemTime::now());
        let mut rejections = Vec::new();
        let (mut stored, mut duplicates) = (0, 0);
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                StoreOutcome::Stored => {
                    stored += 1;
                    if let Some(received_at) = entries[index].received_at {
                        // Another machine's clock may be ahead.
                        let took = now.duration_since(received_at).unwrap_or_default();
                        self.status.note_stored_after(took);
                    }
                }
                StoreOutcome::Duplicate { conflicting } => {
                    duplicates += 1;
                    if conflicting {
                        tally.conflicts += 1;
                        tracing::warn!(
                            id = %entries[index].id,
                            "another log is stored under this id; the first one stays"
                        );
                    }
                }
                StoreOutcome::Rejected(rejection) => rejections.push((index, rejection)),
            }
        }
        tally.stored += stored;
        tally.duplicates += duplicates;
        self.status.note_known_stored(stored + duplicates);
        if stored + duplicates > 0 {
            self.status.set_problem(None);
        }
        rejections
    }

    /// An entry was refused by an unknown code: it is the culprit if others
    /// are stored meanwhile; while nothing is, the store is at fault and
    /// somebody has to mend it. `None`: it is stored after all.
    async fn judge(
        &self,
        entry: &LogEntry,
        mut rejection: Rejection,
        stored_before: u64,
        tally: &mut Tally,
    ) -> Option<(Rejection, u32)> {
        let mut attempts = 1;
        loop {
            if attempts >= ATTEMPTS_OF_A_CULPRIT && self.status.known_stored() > stored_before {
                return Some((rejection, attempts));
            }
            if self.status.known_stored() == stored_before {
                let Rejection { code, message, .. } = &rejection;
                let problem = format!("the store refuses every log, by the code {code}: {message}");
                self.wait_after(&StoreError::Operator(problem), attempts).await;
            } else {
                tokio::time::sleep(TRANSIENT.jittered(attempts)).await;
            }
            match self.store_part(std::slice::from_ref(entry), tally).await {
                Ok(rejections) => match rejections.into_iter().next() {
                    Some((_, known)) if known.is_known => return Some((known, attempts + 1)),
                    Some((_, unknown)) => rejection = unknown,
                    None => return None,
                },
                Err(unknown) => rejection = unknown,
            }
            attempts += 1;
        }
    }

    async fn wait_after(&self, error: &StoreError, attempt: u32) {
        let delay = match error {
            StoreError::Operator(_) => OPERATOR,
            StoreError::Transient(_) | StoreError::Unknown { .. } => TRANSIENT.jittered(attempt),
        };
        if self.status.set_problem(Some(error.to_string())) {
            tracing::error!(%error, "cannot store; trying again until it works");
        }
        tokio::time::sleep(delay).await;
    }

    fn letter(
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
            failed_at: Timestamp::from(std::time::SystemTime::now()),
        };
        DeadLetter { summary, raw: record.value.unwrap_or_default().to_vec() }
    }

    /// The watermark passes a bad record only when its letter is kept.
    async fn keep_letter(&self, letter: DeadLetter, tally: &mut Tally) {
        let DeadLetterSummary { id, code, message, partition, offset, .. } = &letter.summary;
        tracing::warn!(%id, code, message, partition, offset, "a record cannot be stored: it becomes a dead letter");
        let mut attempt = 1;
        while let Err(error) = self.dead_letters.put(&letter).await {
            self.wait_after(&error, attempt).await;
            attempt += 1;
        }
        tally.dead_letters.push(letter.summary.code);
    }
}

enum Decoded {
    Entry(LogEntry),
    Nothing,
    Poison(Box<DeadLetter>),
}
