//! Ingest: validates events, assigns their ids and appends them to the queue.
//!
//! An event takes two steps: *prepare* parses and encodes it, *enqueue* waits for
//! the queue. Between them the caller releases the request's buffers.
//!
//! | file | contents |
//! |---|---|
//! | `event` | one event |
//! | `batch` | many events, each validated on its own |
//! | `budget` | the memory limit of all requests |
//! | `error` | the reasons an event is not queued |

mod batch;
mod budget;
mod error;
mod event;

use std::sync::Arc;

use eyego_log_core::{IngestRequest, LogIdGenerator, Timestamp};

pub use self::batch::{BatchOutcome, PreparedBatch, RejectedEvent};
pub use self::budget::{Budget, Share};
pub use self::error::IngestError;
pub use self::event::PreparedEvent;
use super::metrics::IngestCounters;
use crate::domain::queue::LogQueue;

/// Bytes that a record has in addition to the event's body, about: its key, its
/// id and its time of receipt.
const RECORD_OVERHEAD: usize = 160;

/// Size limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct IngestLimits {
    /// Maximum size of an event as it was sent, in bytes.
    pub max_event_bytes: usize,
    /// Maximum number of events in a batch.
    pub max_batch_events: usize,
}

/// Validates events and appends them to the queue.
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

impl Ingest {
    /// Creates an `Ingest` that appends to `queue`.
    #[must_use]
    pub fn new(queue: Arc<dyn LogQueue>, limits: IngestLimits, budget: Budget) -> Self {
        Self { queue, ids: LogIdGenerator::new(), limits, budget, counters: Arc::default() }
    }

    /// Returns the size limits of one request.
    #[must_use]
    pub fn limits(&self) -> IngestLimits {
        self.limits
    }

    /// Returns the memory budget of all requests.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Checks whether the queue accepts events at all, before any work is done for
    /// a large batch.
    ///
    /// # Errors
    /// Returns [`IngestError::NotQueued`] if the queue would refuse them.
    pub fn check_queue(&self) -> Result<(), IngestError> {
        match self.queue.refusal() {
            Some(error) => Err(IngestError::NotQueued { id: None, error }),
            None => Ok(()),
        }
    }

    /// Returns the counters of received events and their outcomes.
    #[must_use]
    pub fn counters(&self) -> &Arc<IngestCounters> {
        &self.counters
    }

    fn parse(&self, body: &[u8], now: Timestamp) -> Result<IngestRequest, IngestError> {
        let max = self.limits.max_event_bytes;
        if body.len() > max {
            return Err(IngestError::TooLarge { bytes: body.len(), max });
        }
        IngestRequest::parse(body, now).map_err(IngestError::Invalid)
    }
}
