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
use std::time::Duration;

use eyego_log_core::{FieldError, IngestRequest, LogIdGenerator, ParseError, Timestamp};

pub use self::batch::{BatchOutcome, PreparedBatch, RejectedEvent};
pub use self::budget::{Budget, Share};
pub use self::error::IngestError;
pub use self::event::PreparedEvent;
use super::metrics::IngestCounters;
use crate::domain::queue::LogQueue;
use crate::domain::retention::Retention;

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
    retention: Arc<Retention>,
    counters: Arc<IngestCounters>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Ingest {
    /// Creates an `Ingest` that appends to `queue`. Events older than `retention`
    /// are invalid.
    #[must_use]
    pub fn new(
        queue: Arc<dyn LogQueue>,
        limits: IngestLimits,
        budget: Budget,
        retention: Arc<Retention>,
    ) -> Self {
        let ids = LogIdGenerator::new();
        Self { queue, ids, limits, budget, retention, counters: Arc::default() }
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
        let request = IngestRequest::parse(body, now).map_err(IngestError::Invalid)?;
        match self.check_retention(&request, now) {
            Some(error) => Err(IngestError::Invalid(ParseError::Fields(error.into()))),
            None => Ok(request),
        }
    }

    /// Returns the error of an event that would be deleted at once.
    fn check_retention(&self, request: &IngestRequest, now: Timestamp) -> Option<FieldError> {
        let (timestamp, action) = (request.timestamp?, request.action.as_str());
        if !self.retention.is_expired(action, timestamp, now) {
            return None;
        }
        let kept = self.retention.of(action)?;
        let reason = format!(
            "must not be older than {}, the time for which events with this action are kept",
            describe(kept)
        );
        Some(FieldError::new("timestamp", reason))
    }
}

/// Formats a duration in the largest unit that divides it evenly.
fn describe(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(24 * 60 * 60, "days"), (60 * 60, "hours"), (60, "minutes")];
    match units.into_iter().find(|(unit, _)| seconds >= 2 * unit && seconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} seconds"),
    }
}
