//! Settles one bulk: every record is stored, found to be a duplicate, kept as a
//! dead letter, or skipped: because it has no value, is expired, or its user is
//! erased. An event whose id is stored with different content becomes a dead letter
//! (ADR 0026).

use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::{LogEntry, Timestamp};

use super::batcher::{Bulk, BulkRecord};
use super::retry::Backoff;
use super::status::{Tally, WorkerStatus};
use crate::application::removal::{self, GuardedStore, Offered, SkipReason};
use crate::application::{decode, identity};
use crate::domain::dead_letter::{DeadLetter, DeadLetters};
use crate::domain::repository::{Rejection, StoreError, StoreOutcome};

/// Back-off after a transient failure of the store.
const TRANSIENT: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

/// Pause between retries of a failure that an operator has to fix.
const OPERATOR: Duration = Duration::from_secs(5);

/// Number of times that an entry is refused alone, with an unknown code, before
/// it can become a dead letter.
const SUSPECT_ATTEMPTS: u32 = 3;

/// Stores bulks, with retries, and writes dead letters.
pub(super) struct Settler {
    pub(super) store: GuardedStore,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    pub(super) status: Arc<WorkerStatus>,
    /// Name of the queue, part of derived ids.
    pub(super) topic: String,
}

/// An entry that the store will never accept.
struct Rejected {
    /// Index of the record in the bulk.
    index: usize,
    entry: LogEntry,
    rejection: Rejection,
    attempts: u32,
}

/// A record that becomes a dead letter.
pub(super) struct Unstorable {
    pub(super) dead_letter: DeadLetter,
    /// The event, if the record could be decoded.
    pub(super) entry: Option<LogEntry>,
}

/// A record of the queue, decoded.
enum Decoded {
    Entry(LogEntry),
    /// The record has no value.
    Empty,
    /// No store can hold the record.
    Poison(Box<DeadLetter>),
}

impl Settler {
    /// Settles every record of a bulk and returns the outcomes. Retries without
    /// limit.
    pub(super) async fn settle(&self, bulk: &Bulk) -> Tally {
        let mut tally = Tally::default();
        let mut unstorable = Vec::new();
        let mut entries = Vec::with_capacity(bulk.len());
        let mut indexes = Vec::with_capacity(bulk.len());
        for (index, record) in bulk.iter().enumerate() {
            match self.decode(&record) {
                Decoded::Entry(entry) => {
                    entries.push(entry);
                    indexes.push(index);
                }
                Decoded::Empty => tally.skipped.add(SkipReason::NoValue),
                Decoded::Poison(dead_letter) => {
                    unstorable.push(Unstorable { dead_letter: *dead_letter, entry: None });
                }
            }
        }
        let records: Vec<BulkRecord<'_>> = bulk.iter().collect();
        for rejected in self.store(entries, &indexes, &mut tally).await {
            let Rejected { index, entry, rejection, attempts } = rejected;
            let mut dead_letter = self.dead_letter(&records[index], entry.id, rejection, attempts);
            dead_letter.summary.user_id = Some(entry.user_id.to_string());
            unstorable.push(Unstorable { dead_letter, entry: Some(entry) });
        }
        self.put_dead_letters(unstorable, &mut tally).await;
        tally
    }

    fn decode(&self, record: &BulkRecord<'_>) -> Decoded {
        let Some(value) = record.value else { return Decoded::Empty };
        let derive_id = || {
            let BulkRecord { partition, offset, queued_at, .. } = *record;
            identity::of_position(&self.topic, partition, offset, queued_at, value)
        };
        match decode::entry(value, record.queued_at, derive_id) {
            Ok(entry) => Decoded::Entry(entry),
            Err(rejection) => {
                let mut dead_letter = self.dead_letter(record, derive_id(), rejection, 1);
                let user_id = removal::user_id(value);
                dead_letter.summary.user_id = user_id.map(|user_id| user_id.to_string());
                Decoded::Poison(Box::new(dead_letter))
            }
        }
    }

    /// Stores entries and returns those that the store will never accept. A call
    /// that the store refuses as a whole is split in halves. `indexes` holds the
    /// index in the bulk of each entry.
    async fn store(
        &self,
        entries: Vec<LogEntry>,
        indexes: &[usize],
        tally: &mut Tally,
    ) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        let mut suspects = Vec::new();
        let stored_before = self.status.known_stored();
        let mut ranges = Vec::new();
        ranges.push(0..entries.len());
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            match self.store_range(&entries[range.clone()], tally).await {
                Ok(rejections) => {
                    for (offset, rejection) in rejections {
                        let list = if rejection.is_known { &mut rejected } else { &mut suspects };
                        list.push((range.start + offset, rejection));
                    }
                }
                Err(rejection) if range.len() == 1 => suspects.push((range.start, rejection)),
                Err(_) => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
        }
        let mut entries: Vec<Option<LogEntry>> = entries.into_iter().map(Some).collect();
        let mut result = Vec::new();
        for (position, rejection) in rejected {
            if let Some(entry) = entries[position].take() {
                result.push(Rejected { index: indexes[position], entry, rejection, attempts: 1 });
            }
        }
        for (position, rejection) in suspects {
            let Some(entry) = entries[position].take() else { continue };
            let resolved = self.resolve_suspect(&entry, rejection, stored_before, tally).await;
            if let Some((rejection, attempts)) = resolved {
                result.push(Rejected { index: indexes[position], entry, rejection, attempts });
            }
        }
        result
    }

    /// Stores entries, retrying transient failures and those that an operator
    /// has to fix. Returns the rejected entries by their index in `entries`.
    ///
    /// # Errors
    /// Returns a rejection if the store refuses the whole call with an unknown
    /// code.
    async fn store_range(
        &self,
        entries: &[LogEntry],
        tally: &mut Tally,
    ) -> Result<Vec<(usize, Rejection)>, Rejection> {
        let mut attempt = 1;
        loop {
            match self.store.store(entries).await {
                Ok(outcomes) => return Ok(self.count_outcomes(entries, outcomes, tally)),
                Err(StoreError::Unknown { code, message }) => {
                    return Err(Rejection { code, message, is_known: false });
                }
                Err(error @ (StoreError::Transient(_) | StoreError::Operator(_))) => {
                    self.back_off(&error, attempt).await;
                }
            }
            attempt += 1;
        }
    }

    fn count_outcomes(
        &self,
        entries: &[LogEntry],
        outcomes: Vec<Offered>,
        tally: &mut Tally,
    ) -> Vec<(usize, Rejection)> {
        let now = Timestamp::from(std::time::SystemTime::now());
        let mut rejections = Vec::new();
        let (mut stored, mut duplicates, mut conflicts) = (0, 0, 0);
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let outcome = match outcome {
                Offered::Store(outcome) => outcome,
                Offered::Skipped(reason) => {
                    tally.skipped.add(reason);
                    continue;
                }
            };
            match outcome {
                StoreOutcome::Stored => {
                    stored += 1;
                    if let Some(received_at) = entries[index].received_at {
                        // Negative if the clock of another machine is ahead.
                        let took = now.duration_since(received_at).unwrap_or_default();
                        self.status.note_stored_after(took);
                    }
                }
                StoreOutcome::Duplicate { conflicting: false } => duplicates += 1,
                StoreOutcome::Duplicate { conflicting: true } => {
                    conflicts += 1;
                    rejections.push((index, Rejection::id_conflict(entries[index].id)));
                }
                StoreOutcome::Rejected(rejection) => rejections.push((index, rejection)),
            }
        }
        tally.stored += stored;
        tally.duplicates += duplicates;
        // A conflict shows that the store works, too.
        let known = stored + duplicates + conflicts;
        self.status.note_known_stored(known);
        if known > 0 {
            self.status.set_problem(None);
        }
        rejections
    }

    /// Decides about an entry that was refused with an unknown code. Returns the
    /// reason it becomes a dead letter and the number of attempts, or `None` if
    /// it was stored after all.
    ///
    /// If other entries are stored in the meantime, the entry is the cause. If
    /// none is, the store is at fault, and an operator has to fix it.
    async fn resolve_suspect(
        &self,
        entry: &LogEntry,
        mut rejection: Rejection,
        stored_before: u64,
        tally: &mut Tally,
    ) -> Option<(Rejection, u32)> {
        let mut attempts = 1;
        loop {
            let others_are_stored = self.status.known_stored() > stored_before;
            if attempts >= SUSPECT_ATTEMPTS && others_are_stored {
                return Some((rejection, attempts));
            }
            if others_are_stored {
                tokio::time::sleep(TRANSIENT.jittered(attempts)).await;
            } else {
                let Rejection { code, message, .. } = &rejection;
                let problem =
                    format!("the store refuses every event with the code {code}: {message}");
                self.back_off(&StoreError::Operator(problem), attempts).await;
            }
            match self.store_range(std::slice::from_ref(entry), tally).await {
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

    pub(super) async fn back_off(&self, error: &StoreError, attempt: u32) {
        let delay = match error {
            StoreError::Operator(_) => OPERATOR,
            StoreError::Transient(_) | StoreError::Unknown { .. } => TRANSIENT.jittered(attempt),
        };
        if self.status.set_problem(Some(error.to_string())) {
            tracing::error!(%error, "cannot store events; retrying");
        }
        tokio::time::sleep(delay).await;
    }
}
