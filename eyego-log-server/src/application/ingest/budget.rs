//! The memory limit of all requests (ADR 0015).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::queue::AppendError;

/// Bytes that an event in flight costs in addition to its body: the overhead of
/// its record, twice, and about 200 bytes that librdkafka keeps per message.
const EVENT_OVERHEAD: usize = 512;

/// Limits the memory of events in flight. A share is reserved when the first
/// byte of a body arrives and held until the outcome of its last record is
/// known.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
}

impl Budget {
    /// Creates a budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// Reserves a share of the budget until the permit is dropped.
    ///
    /// # Errors
    /// Returns [`AppendError::Full`] if less than `bytes` is left.
    pub fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let permit = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| Arc::clone(&self.semaphore).try_acquire_many_owned(bytes).ok());
        permit
            .ok_or_else(|| AppendError::Full("the memory for events in flight is full".to_owned()))
    }

    /// Adds the overhead of this many events to a share of the budget.
    ///
    /// # Errors
    /// Returns [`AppendError::Full`] if too little is left.
    pub(super) fn reserve_events(
        &self,
        permit: &mut OwnedSemaphorePermit,
        events: usize,
    ) -> Result<(), AppendError> {
        permit.merge(self.reserve(EVENT_OVERHEAD * events)?);
        Ok(())
    }

    /// Returns the cost of the events and records made from a decompressed body
    /// of this many bytes.
    #[must_use]
    pub fn cost_of_decoded(bytes: usize) -> usize {
        2 * bytes
    }
}
