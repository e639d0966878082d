//! From the caller into the queue: parses, gives each log its identity,
//! appends, and says what became of each.

use std::collections::HashMap;
use std::sync::Arc;

use eyego_log_core::wire::{RejectedItem, RejectionCode};
use eyego_log_core::{
    FieldErrors, IngestRequest, LogEntry, LogId, LogIdGenerator, ParseError, Timestamp,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::identity;
use super::metrics::{IngestCounters, Refusal, UnderWay};
use crate::domain::queue::{AppendError, LogQueue, RecordBatch};

/// Bytes of bookkeeping that each event costs while it is in flight.
const PER_EVENT: usize = 256;

/// Of a batch with very many faults only the first of each item is listed past
/// this many.
const MAX_LISTED_FAULTS: usize = 1000;

/// What one request may hold.
#[derive(Debug, Clone, Copy)]
pub struct IngestLimits {
    /// Bytes of one event as it was sent.
    pub max_event_bytes: usize,
    /// Events in a batch.
    pub max_batch_events: usize,
}

/// The use case.
pub struct Ingest {
    queue: Arc<dyn LogQueue>,
    ids: LogIdGenerator,
    limits: IngestLimits,
    budget: Budget,
    counters: Arc<IngestCounters>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The memory for what is in flight: taken from the first byte of a body until
/// the fate of its last record is known.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// A share of the budget, if there is as much left.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.semaphore).try_acquire_many_owned(bytes).ok()
    }

    /// What a body costs beyond its bytes, once it is known how much it
    /// decodes to: the events and the records made of it.
    #[must_use]
    pub fn cost_of_decoded(bytes: usize) -> usize {
        2 * bytes
    }
}

/// One event was not queued, and why.
#[derive(Debug)]
pub enum IngestError {
    /// It is not JSON, or has faults.
    Invalid(ParseError),
    /// It is larger than an event may be.
    TooLarge(String),
    /// The queue did not acknowledge it; it may still appear, under this id.
    NotQueued(LogId, AppendError),
}

impl IngestError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Invalid(_) => Refusal::Invalid,
            Self::TooLarge(_) => Refusal::TooLarge,
            Self::NotQueued(_, error) => refusal_of(error),
        }
    }
}

impl Ingest {
    /// Ingests into this queue.
    #[must_use]
    pub fn new(queue: Arc<dyn LogQueue>, limits: IngestLimits, budget: Budget) -> Self {
        Self { queue, ids: LogIdGenerator::new(), limits, budget, counters: Arc::default() }
    }

    /// The limits of one request.
    #[must_use]
    pub fn limits(&self) -> IngestLimits {
        self.limits
    }

    /// The memory that bodies are read into.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What became of the events that came.
    #[must_use]
    pub fn counters(&self) -> &Arc<IngestCounters> {
        &self.counters
    }

    /// Queues the one event that is this body; `permit` is its share of the
    /// budget.
    ///
    /// # Errors
    /// It is not queued.
    pub async fn one(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
        permit: OwnedSemaphorePermit,
    ) -> Result<LogEntry, IngestError> {
        let mut under_way = self.counters.receive(1);
        let result = self.queue_one(body, idempotency_key, permit).await;
        match &result {
            Ok(_) => under_way.queued(1),
            Err(error) => under_way.refused(error.refusal()),
        }
        result
    }

    async fn queue_one(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
        mut permit: OwnedSemaphorePermit,
    ) -> Result<LogEntry, IngestError> {
        if body.len() > self.limits.max_event_bytes {
            return Err(IngestError::TooLarge(self.too_large(body.len())));
        }
        let now = now();
        let request = IngestRequest::parse(body, now).map_err(IngestError::Invalid)?;
        let id = request.id.unwrap_or_else(|| match idempotency_key {
            Some(key) => identity::of_idempotency_key(key, request.user_id.as_str()),
            None => self.ids.mint(now),
        });
        if !self.charge_events(&mut permit, 1) {
            return Err(IngestError::NotQueued(id, out_of_memory()));
        }
        let mut batch = RecordBatch::with_capacity(body.len() + 160, 1);
        let entry = request.into_entry(id, now);
        batch.push(&entry);
        batch.hold_until_settled(permit);
        match self.queue.append(batch).await.pop() {
            Some(Ok(())) => Ok(entry),
            Some(Err(error)) => Err(IngestError::NotQueued(id, error)),
            None => Err(IngestError::NotQueued(id, no_answer())),
        }
    }

    /// Parses the events of a batch and gives them their ids. Blocks for about
    /// a microsecond an event.
    #[must_use]
    pub fn prepare(&self, items: &[&[u8]], idempotency_key: Option<&str>) -> PreparedBatch {
        let now = now();
        let bytes: usize = items.iter().map(|item| item.len() + 160).sum();
        let mut prepared = PreparedBatch {
            batch: RecordBatch::with_capacity(bytes, items.len()),
            places: Vec::with_capacity(items.len()),
            ids: Vec::with_capacity(items.len()),
            has_own_ids: false,
            rejected: Vec::new(),
            under_way: self.counters.receive(items.len()),
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
                            None => self.ids.mint(now),
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
                Err(ParseError::Fields(mut errors)) => {
                    let message = errors.to_string();
                    faults += errors.len();
                    if faults > MAX_LISTED_FAULTS {
                        errors = errors.into_vec().into_iter().take(1).fold(
                            FieldErrors::new(),
                            |mut first, error| {
                                first.push(error);
                                first
                            },
                        );
                        let message = errors.to_string();
                        prepared.reject(index, RejectionCode::Invalid, message, errors);
                    } else {
                        prepared.reject(index, RejectionCode::Invalid, message, errors);
                    }
                }
            }
        }
        prepared
    }

    /// Queues what was prepared; `permit` is the body's share of the budget.
    pub async fn many(
        &self,
        prepared: PreparedBatch,
        mut permit: OwnedSemaphorePermit,
    ) -> BatchOutcome {
        let PreparedBatch { mut batch, places, ids, has_own_ids, mut rejected, mut under_way } =
            prepared;
        let results = if batch.is_empty() {
            Vec::new()
        } else if self.charge_events(&mut permit, batch.len()) {
            batch.hold_until_settled(permit);
            self.queue.append(batch).await
        } else {
            vec![Err(out_of_memory()); batch.len()]
        };
        let mut accepted = 0;
        for (index, result) in places.iter().zip(results) {
            match result {
                Ok(()) => accepted += 1,
                Err(error) => {
                    under_way.refused(refusal_of(&error));
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
        under_way.queued(accepted as u64);
        rejected.sort_by_key(|item| item.index);
        BatchOutcome { accepted, ids: has_own_ids.then_some(ids), rejected }
    }

    fn charge_events(&self, permit: &mut OwnedSemaphorePermit, events: usize) -> bool {
        let Some(more) = self.budget.take(PER_EVENT * events) else { return false };
        permit.merge(more);
        true
    }

    fn too_large(&self, bytes: usize) -> String {
        let max = self.limits.max_event_bytes;
        format!("an event must have at most {max} bytes, not {bytes}")
    }
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
    under_way: UnderWay,
}

impl PreparedBatch {
    fn reject(&mut self, index: usize, code: RejectionCode, message: String, errors: FieldErrors) {
        let is_too_large = code == RejectionCode::TooLarge;
        self.under_way.refused(if is_too_large { Refusal::TooLarge } else { Refusal::Invalid });
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

/// What a caller is told: no names of hosts, no text of the engine.
#[must_use]
pub fn public_message(error: &AppendError) -> &'static str {
    match error {
        AppendError::Full(_) => "the queue is full; try again, with the same id",
        AppendError::Unavailable(_) => {
            "the queue did not acknowledge the log; try again, with the same id"
        }
        AppendError::TooLarge(_) => "the event is larger than the queue takes",
    }
}

fn code_of(error: &AppendError) -> RejectionCode {
    match error {
        AppendError::Full(_) => RejectionCode::QueueFull,
        AppendError::Unavailable(_) => RejectionCode::QueueUnavailable,
        AppendError::TooLarge(_) => RejectionCode::TooLarge,
    }
}

/// The reason of an event that the queue did not acknowledge.
#[must_use]
pub fn refusal_of(error: &AppendError) -> Refusal {
    match error {
        AppendError::Full(_) => Refusal::QueueFull,
        AppendError::Unavailable(_) => Refusal::Unavailable,
        AppendError::TooLarge(_) => Refusal::TooLarge,
    }
}

fn out_of_memory() -> AppendError {
    AppendError::Full("the budget of bytes in flight is used up".to_owned())
}

fn no_answer() -> AppendError {
    AppendError::Unavailable("no answer in time".to_owned())
}

fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}
