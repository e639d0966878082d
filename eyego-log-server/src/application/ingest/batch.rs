//! Many events at once: each is judged by itself.

use std::collections::HashMap;
use std::time::SystemTime;

use eyego_log_core::wire::{RejectedItem, RejectionCode};
use eyego_log_core::{FieldErrors, IngestRequest, LogId, ParseError, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

use super::{Ingest, code_of, out_of_memory, public_message, refusal_of};
use crate::application::identity;
use crate::application::metrics::{InFlight, Refusal};
use crate::domain::queue::Durable;
use crate::domain::record_batch::RecordBatch;

/// Of a batch with very many faults only the first of each item is listed past
/// this many.
const MAX_LISTED_FAULTS: usize = 1000;

impl Ingest {
    /// Parses the events of a batch and gives them their ids. Blocks for about
    /// a microsecond an event.
    #[must_use]
    pub fn prepare_batch(&self, items: &[&[u8]], idempotency_key: Option<&str>) -> PreparedBatch {
        let received_at = SystemTime::now();
        let now = Timestamp::from(received_at);
        let bytes: usize = items.iter().map(|item| item.len() + 160).sum();
        let mut prepared = PreparedBatch {
            batch: RecordBatch::with_capacity(bytes, items.len()),
            places: Vec::with_capacity(items.len()),
            ids: Vec::with_capacity(items.len()),
            has_own_ids: false,
            rejected: Vec::new(),
            in_flight: self.counters.receive(items.len(), received_at),
        };
        let mut occurrences: HashMap<&[u8], u32> = HashMap::new();
        let mut faults = 0;
        for (index, item) in items.iter().enumerate() {
            let occurrence = idempotency_key.map(|key| {
                let count = occurrences.entry(item).or_default();
                *count += 1;
                (key, *count - 1)
            });
            if item.len() > self.limits.max_event_bytes {
                let message = self.too_large(item.len());
                prepared.reject(index, RejectionCode::TooLarge, message, FieldErrors::new());
                continue;
            }
            match IngestRequest::parse(item, now) {
                Ok(request) => {
                    let id = request.id.unwrap_or_else(|| {
                        prepared.has_own_ids = true;
                        match occurrence {
                            Some((key, nth)) => identity::of_batch_item(key, item, nth),
                            None => self.ids.generate(now),
                        }
                    });
                    prepared.batch.push(&request.into_entry(id, now));
                    prepared.places.push(index);
                    prepared.ids.push(Some(id));
                }
                Err(ParseError::Syntax(error)) => {
                    let message = error.to_string();
                    prepared.reject(index, RejectionCode::Invalid, message, FieldErrors::new());
                }
                Err(ParseError::Fields(errors)) => {
                    faults += errors.len();
                    let errors = if faults > MAX_LISTED_FAULTS { first_of(errors) } else { errors };
                    let message = errors.to_string();
                    prepared.reject(index, RejectionCode::Invalid, message, errors);
                }
            }
        }
        prepared
    }

    /// Queues what was prepared; `permit` is the body's share of the budget.
    pub async fn enqueue_batch(
        &self,
        prepared: PreparedBatch,
        mut permit: OwnedSemaphorePermit,
    ) -> BatchOutcome {
        let PreparedBatch { mut batch, places, ids, has_own_ids, mut rejected, mut in_flight } =
            prepared;
        let results = if batch.is_empty() {
            Vec::new()
        } else if self.charge_events(&mut permit, batch.len()) {
            batch.hold_until_settled(permit);
            self.queue.append(batch).await
        } else {
            vec![Err(out_of_memory()); batch.len()]
        };
        let (mut queued, mut spooled) = (0, 0);
        for (index, result) in places.iter().zip(results) {
            match result {
                Ok(Durable::Queue) => queued += 1,
                Ok(Durable::Spool) => spooled += 1,
                Err(error) => {
                    in_flight.refused(refusal_of(&error));
                    let code = code_of(&error);
                    rejected.push(RejectedItem {
                        index: *index,
                        id: ids[*index],
                        code,
                        message: public_message(&error).to_owned(),
                        errors: FieldErrors::new(),
                        retryable: code.is_retryable(),
                    });
                }
            }
        }
        in_flight.acknowledged(Durable::Queue, queued as u64);
        in_flight.acknowledged(Durable::Spool, spooled as u64);
        rejected.sort_by_key(|item| item.index);
        let accepted = queued + spooled;
        BatchOutcome { accepted, ids: has_own_ids.then_some(ids), rejected }
    }
}

fn first_of(errors: FieldErrors) -> FieldErrors {
    errors.into_vec().into_iter().next().map(FieldErrors::from).unwrap_or_default()
}

/// The events of a batch, on their way into the queue.
#[derive(Debug)]
pub struct PreparedBatch {
    batch: RecordBatch,
    /// The index in the request of each record of the batch.
    places: Vec<usize>,
    /// The id of each item of the request.
    ids: Vec<Option<LogId>>,
    /// Whether we minted or derived any of them.
    has_own_ids: bool,
    rejected: Vec<RejectedItem>,
    in_flight: InFlight,
}

impl PreparedBatch {
    fn reject(&mut self, index: usize, code: RejectionCode, message: String, errors: FieldErrors) {
        let is_too_large = code == RejectionCode::TooLarge;
        self.in_flight.refused(if is_too_large { Refusal::TooLarge } else { Refusal::Invalid });
        self.ids.push(None);
        let retryable = code.is_retryable();
        let item = RejectedItem { index, id: None, code, message, errors, retryable };
        self.rejected.push(item);
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// How many are queued.
    pub accepted: usize,
    /// The id of each item, where we minted or derived any.
    pub ids: Option<Vec<Option<LogId>>>,
    /// The others, by index.
    pub rejected: Vec<RejectedItem>,
}
