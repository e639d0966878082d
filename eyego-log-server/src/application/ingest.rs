//! From the caller into the queue: parses, gives each log its identity,
//! appends, and says what became of each.

mod batch;

use std::sync::Arc;
use std::time::SystemTime;

use eyego_log_core::wire::RejectionCode;
use eyego_log_core::{IngestRequest, LogEntry, LogId, LogIdGenerator, ParseError, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::batch::{BatchOutcome, PreparedBatch};
use super::identity;
use super::metrics::{InFlight, IngestCounters, Refusal};
use crate::domain::queue::{AppendError, LogQueue};
use crate::domain::record_batch::RecordBatch;

/// Bytes of bookkeeping that each event costs while it is in flight: what the
/// record has beyond the event, twice, and the queue's own notes on it
/// (librdkafka's are some 200 bytes).
const PER_EVENT: usize = 512;

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

/// One event, ready for the queue. Dropped, it counts as abandoned.
#[derive(Debug)]
pub struct PreparedEvent {
    entry: LogEntry,
    batch: RecordBatch,
    in_flight: InFlight,
}

impl PreparedEvent {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.entry.id
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

    /// Makes one event of this body; `permit` is its share of the budget.
    ///
    /// # Errors
    /// It has faults, or there is no memory for it.
    pub fn prepare_event(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
        permit: OwnedSemaphorePermit,
    ) -> Result<PreparedEvent, IngestError> {
        let received_at = SystemTime::now();
        let mut in_flight = self.counters.receive(1, received_at);
        match self.encode_one(body, idempotency_key, permit, received_at.into()) {
            Ok((entry, batch)) => Ok(PreparedEvent { entry, batch, in_flight }),
            Err(error) => {
                in_flight.refused(error.refusal());
                Err(error)
            }
        }
    }

    fn encode_one(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
        mut permit: OwnedSemaphorePermit,
        now: Timestamp,
    ) -> Result<(LogEntry, RecordBatch), IngestError> {
        if body.len() > self.limits.max_event_bytes {
            return Err(IngestError::TooLarge(self.too_large(body.len())));
        }
        let request = IngestRequest::parse(body, now).map_err(IngestError::Invalid)?;
        let id = request.id.unwrap_or_else(|| match idempotency_key {
            Some(key) => identity::of_idempotency_key(key, request.user_id.as_str()),
            None => self.ids.generate(now),
        });
        if !self.charge_events(&mut permit, 1) {
            return Err(IngestError::NotQueued(id, out_of_memory()));
        }
        let mut batch = RecordBatch::with_capacity(body.len() + 160, 1);
        let entry = request.into_entry(id, now);
        batch.push(&entry);
        batch.hold_until_settled(permit);
        Ok((entry, batch))
    }

    /// Queues an event.
    ///
    /// # Errors
    /// It is not queued.
    pub async fn enqueue_event(&self, event: PreparedEvent) -> Result<LogEntry, IngestError> {
        let PreparedEvent { entry, batch, mut in_flight } = event;
        match self.queue.append(batch).await.pop().unwrap_or_else(|| Err(no_answer())) {
            Ok(place) => {
                in_flight.acknowledged(place, 1);
                Ok(entry)
            }
            Err(error) => {
                in_flight.refused(refusal_of(&error));
                Err(IngestError::NotQueued(entry.id, error))
            }
        }
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
