//! Ingests one event.

use std::time::SystemTime;

use eyego_log_core::{LogEntry, LogId, Timestamp};

use super::{Ingest, IngestError, RECORD_OVERHEAD, Share};
use crate::application::identity;
use crate::application::metrics::InFlight;
use crate::domain::queue::AppendError;
use crate::domain::record_batch::RecordBatch;

/// An event that is ready for the queue. If it is dropped, it is counted as
/// abandoned.
#[derive(Debug)]
pub struct PreparedEvent {
    entry: LogEntry,
    batch: RecordBatch,
    in_flight: InFlight,
}

impl PreparedEvent {
    /// Returns the event's id.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.entry.id
    }
}

impl Ingest {
    /// Parses an event, assigns its id and encodes it. `share` is the body's
    /// share of the budget.
    ///
    /// # Errors
    /// Returns an error if the event is invalid or too large, or if the budget
    /// is used up.
    pub fn prepare_event(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
        share: Share,
    ) -> Result<PreparedEvent, IngestError> {
        let received_at = SystemTime::now();
        let mut in_flight = self.counters.receive(1, received_at);
        match self.encode_event(body, idempotency_key, share, received_at.into()) {
            Ok((entry, batch)) => Ok(PreparedEvent { entry, batch, in_flight }),
            Err(error) => {
                in_flight.refused(error.refusal());
                Err(error)
            }
        }
    }

    fn encode_event(
        &self,
        body: &[u8],
        idempotency_key: Option<&str>,
        mut share: Share,
        now: Timestamp,
    ) -> Result<(LogEntry, RecordBatch), IngestError> {
        let request = self.parse(body, now)?;
        let id = request.id.unwrap_or_else(|| match idempotency_key {
            Some(key) => identity::of_idempotency_key(key, request.user_id.as_str()),
            None => self.ids.generate(now),
        });
        share.add_events(1).map_err(|error| IngestError::NotQueued { id: Some(id), error })?;
        let mut batch = RecordBatch::with_capacity(body.len() + RECORD_OVERHEAD, 1);
        let entry = request.into_entry(id, now);
        batch.push(&entry);
        batch.hold_until_settled(share);
        Ok((entry, batch))
    }

    /// Appends an event to the queue and returns it once it is durable.
    ///
    /// # Errors
    /// Returns [`IngestError::NotQueued`] if the queue does not acknowledge the
    /// event.
    pub async fn enqueue_event(&self, event: PreparedEvent) -> Result<LogEntry, IngestError> {
        let PreparedEvent { entry, batch, mut in_flight } = event;
        let results = self.queue.append(batch).await;
        // The queue returns one result per record.
        let result = results.into_iter().next().unwrap_or_else(|| {
            Err(AppendError::Unavailable("the queue returned no result".to_owned()))
        });
        match result {
            Ok(durable) => {
                in_flight.acknowledged(durable, 1);
                Ok(entry)
            }
            Err(error) => {
                let error = IngestError::NotQueued { id: Some(entry.id), error };
                in_flight.refused(error.refusal());
                Err(error)
            }
        }
    }
}
