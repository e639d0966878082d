//! Ingests many events at once. Each event is validated and queued on its own.

use std::collections::HashMap;
use std::time::SystemTime;

use eyego_log_core::{LogEntry, LogId, ParseError, Timestamp};

use super::{Ingest, IngestError, RECORD_OVERHEAD, Share};
use crate::application::identity;
use crate::application::metrics::{InFlight, Refusal};
use crate::domain::queue::Durable;
use crate::domain::record_batch::RecordBatch;

/// Number of field errors of one batch that are listed. The errors of further
/// events are only counted. Bounds the response.
const MAX_FIELD_ERRORS: usize = 1000;

/// A batch that is ready for the queue. If it is dropped, its valid events are
/// counted as abandoned.
#[derive(Debug)]
pub struct PreparedBatch {
    batch: RecordBatch,
    /// Index in the request and id of each record of `batch`.
    records: Vec<(usize, LogId)>,
    /// Id of each item of the request, `None` for a rejected one.
    ids: Vec<Option<LogId>>,
    /// Whether the server generated or derived at least one id.
    has_assigned_ids: bool,
    rejected: Vec<RejectedEvent>,
    in_flight: InFlight,
    /// The body's share of the budget.
    share: Share,
}

/// Outcome of a batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// Number of events that are durably queued.
    pub accepted: usize,
    /// Id of each item in request order, `None` for an invalid one. Present if
    /// the server generated or derived at least one id.
    pub ids: Option<Vec<Option<LogId>>>,
    /// Events that are not queued, in request order.
    pub rejected: Vec<RejectedEvent>,
}

/// An event of a batch that is not queued.
#[derive(Debug)]
pub struct RejectedEvent {
    /// Index in the request, from 0.
    pub index: usize,
    /// The reason.
    pub error: IngestError,
}

impl PreparedBatch {
    /// Returns the number of events in the request, valid or not.
    #[must_use]
    pub fn events(&self) -> usize {
        self.ids.len()
    }

    /// Refuses the valid events of the batch.
    pub fn refuse(mut self, why: Refusal) {
        for _ in 0..self.records.len() {
            self.in_flight.refused(why);
        }
    }

    fn push(&mut self, index: usize, entry: &LogEntry) {
        self.batch.push(entry);
        self.records.push((index, entry.id));
        self.ids.push(Some(entry.id));
    }

    fn reject(&mut self, index: usize, error: IngestError) {
        self.in_flight.refused(error.refusal());
        self.ids.push(None);
        self.rejected.push(RejectedEvent { index, error });
    }
}

impl Ingest {
    /// Parses the events of a batch, assigns their ids and encodes them. Blocks
    /// the thread for about a microsecond per event. `share` is the body's share of
    /// the budget, to which the events are added before they are parsed.
    ///
    /// # Errors
    /// Returns [`IngestError::NotQueued`] if the budget is used up. No event is
    /// counted as received then.
    pub fn prepare_batch(
        &self,
        items: &[&[u8]],
        idempotency_key: Option<&str>,
        mut share: Share,
    ) -> Result<PreparedBatch, IngestError> {
        share
            .add_events(items.len())
            .map_err(|error| IngestError::NotQueued { id: None, error })?;
        let received_at = SystemTime::now();
        let now = Timestamp::from(received_at);
        let bytes: usize = items.iter().map(|item| item.len() + RECORD_OVERHEAD).sum();
        let mut prepared = PreparedBatch {
            batch: RecordBatch::with_capacity(bytes, items.len()),
            records: Vec::with_capacity(items.len()),
            ids: Vec::with_capacity(items.len()),
            has_assigned_ids: false,
            rejected: Vec::new(),
            in_flight: self.counters.receive(items.len(), received_at),
            share,
        };
        let mut occurrences: HashMap<&[u8], u32> = HashMap::new();
        let mut field_errors = 0;
        for (index, item) in items.iter().enumerate() {
            let idempotency = idempotency_key.map(|key| {
                let count = occurrences.entry(item).or_default();
                *count += 1;
                (key, *count - 1)
            });
            match self.parse(item, now) {
                Ok(request) => {
                    let id = request.id.unwrap_or_else(|| {
                        prepared.has_assigned_ids = true;
                        match idempotency {
                            Some((key, occurrence)) => {
                                identity::of_batch_item(key, item, occurrence)
                            }
                            None => self.ids.generate(now),
                        }
                    });
                    prepared.push(index, &request.into_entry(id, now));
                }
                Err(IngestError::Invalid(ParseError::Fields(errors))) => {
                    field_errors += errors.len();
                    let error = if field_errors <= MAX_FIELD_ERRORS {
                        IngestError::Invalid(ParseError::Fields(errors))
                    } else {
                        IngestError::Unlisted { errors: errors.total() }
                    };
                    prepared.reject(index, error);
                }
                Err(error) => prepared.reject(index, error),
            }
        }
        Ok(prepared)
    }

    /// Appends the valid events of a batch to the queue and waits until the
    /// outcome of each is known.
    pub async fn enqueue_batch(&self, prepared: PreparedBatch) -> BatchOutcome {
        let PreparedBatch {
            mut batch,
            records,
            ids,
            has_assigned_ids,
            mut rejected,
            mut in_flight,
            share,
        } = prepared;
        let results = if batch.is_empty() {
            Vec::new()
        } else {
            batch.hold_until_settled(share);
            self.queue.append(batch).await
        };
        let (mut queued, mut spooled) = (0, 0);
        for ((index, id), result) in records.into_iter().zip(results) {
            match result {
                Ok(Durable::Queue) => queued += 1,
                Ok(Durable::Spool) => spooled += 1,
                Err(error) => {
                    let error = IngestError::NotQueued { id: Some(id), error };
                    in_flight.refused(error.refusal());
                    rejected.push(RejectedEvent { index, error });
                }
            }
        }
        in_flight.acknowledged(Durable::Queue, queued as u64);
        in_flight.acknowledged(Durable::Spool, spooled as u64);
        rejected.sort_by_key(|event| event.index);
        let accepted = queued + spooled;
        BatchOutcome { accepted, ids: has_assigned_ids.then_some(ids), rejected }
    }
}
