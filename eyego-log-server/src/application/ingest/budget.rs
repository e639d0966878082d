//! The memory limit of all requests (ADR 0015, ADR 0023).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::queue::AppendError;

/// Bytes that an event in flight costs in addition to its body: the overhead of
/// its record, twice, and about 200 bytes that librdkafka keeps per message.
const EVENT_OVERHEAD: usize = 512;

/// A share up to this is small: a body of 64 KiB, decoded, with its events.
const SMALL_SHARE: usize = 256 << 10;

/// The part of the budget that only small shares may use: one eighth.
const RESERVED_PART: usize = 8;

/// Limits the memory of events in flight. A share is reserved when the first
/// byte of a body arrives and held until the outcome of its last record is
/// known. An eighth is reserved for small shares, so that large or slow bodies
/// cannot deny the ingest of single events.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    used: AtomicUsize,
}

/// A share of a budget, which is returned when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Shared>,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared { total: bytes, used: AtomicUsize::new(0) }))
    }

    /// Returns an empty share.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: Arc::clone(&self.0), bytes: 0 }
    }

    /// Returns the cost of the events and records made from a decompressed body
    /// of this many bytes.
    #[must_use]
    pub fn cost_of_decoded(bytes: usize) -> usize {
        2 * bytes
    }
}

impl Share {
    /// Adds bytes to this share.
    ///
    /// # Errors
    /// Returns [`AppendError::OutOfMemory`] if too little is left. The share keeps
    /// its size.
    pub fn add(&mut self, bytes: usize) -> Result<(), AppendError> {
        let Shared { total, used } = &*self.budget;
        let share = self.bytes.saturating_add(bytes);
        let limit = if share <= SMALL_SHARE { *total } else { *total - *total / RESERVED_PART };
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map_err(|_| AppendError::OutOfMemory)?;
        self.bytes = share;
        Ok(())
    }

    /// Adds the overhead of this many events.
    ///
    /// # Errors
    /// Returns [`AppendError::OutOfMemory`] if too little is left.
    pub(super) fn add_events(&mut self, events: usize) -> Result<(), AppendError> {
        self.add(EVENT_OVERHEAD * events)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_shares_leave_an_eighth_to_small_ones() {
        let budget = Budget::new(8 << 20);
        let mut large = budget.share();
        large.add(7 << 20).unwrap();
        assert_eq!(large.add(1), Err(AppendError::OutOfMemory));
        let mut growing = budget.share();
        growing.add(SMALL_SHARE).unwrap();
        assert_eq!(growing.add(1), Err(AppendError::OutOfMemory), "it would become large");
        let small: Vec<_> = (0..3)
            .map(|_| {
                let mut share = budget.share();
                share.add(SMALL_SHARE).unwrap();
                share
            })
            .collect();
        assert_eq!(budget.share().add(1), Err(AppendError::OutOfMemory), "all is used");
        drop((small, growing, large));
        assert_eq!(budget.0.used.load(Ordering::Relaxed), 0);
    }
}
