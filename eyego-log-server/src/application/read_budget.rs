//! The memory limit of all reads (ADR 0025).

use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::read::{ReadError, ReadMemory};

/// What each read holds from before its query runs: its buffers and the envelope
/// of its response.
const MIN_BYTES: usize = 8 << 10;

/// Reads up to this size are small.
const MAX_SMALL_BYTES: usize = 256 << 10;

/// Limits the memory of results until they are written out.
///
/// A quarter is reserved for small reads, so that clients that do not read their
/// large pages cannot deny everybody else's small ones.
#[derive(Debug, Clone)]
pub struct ReadBudget {
    used: Arc<Mutex<Used>>,
}

/// Bytes in use and their limits.
#[derive(Debug)]
struct Used {
    small: usize,
    max_small: usize,
    large: usize,
    max_large: usize,
}

/// The share of one read. Dropping it releases the share.
#[derive(Debug)]
pub struct ReadShare {
    used: Arc<Mutex<Used>>,
    bytes: Mutex<usize>,
}

impl ReadBudget {
    /// Creates a budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let max_small = bytes / 4;
        let used = Used { small: 0, max_small, large: 0, max_large: bytes - max_small };
        Self { used: Arc::new(Mutex::new(used)) }
    }

    /// Starts a read. Its share grows with its result.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if the budget is used up.
    pub fn start(&self) -> Result<Arc<ReadShare>, ReadError> {
        let share = ReadShare { used: Arc::clone(&self.used), bytes: Mutex::new(0) };
        share.reserve(MIN_BYTES)?;
        Ok(Arc::new(share))
    }
}

impl Used {
    fn release(&mut self, bytes: usize) {
        if bytes <= MAX_SMALL_BYTES {
            self.small -= bytes;
        } else {
            self.large -= bytes;
        }
    }

    fn try_take(&mut self, bytes: usize) -> bool {
        let (used, max) = if bytes <= MAX_SMALL_BYTES {
            (&mut self.small, self.max_small)
        } else {
            (&mut self.large, self.max_large)
        };
        let has_room = *used + bytes <= max;
        if has_room {
            *used += bytes;
        }
        has_room
    }
}

impl ReadMemory for ReadShare {
    fn reserve(&self, more: usize) -> Result<(), ReadError> {
        let mut bytes = self.bytes.lock();
        let mut used = self.used.lock();
        // A result larger than the budget is admitted while no other large one is.
        let total = (*bytes + more).min(used.max_large);
        // The whole share moves once the read is no longer small.
        used.release(*bytes);
        if used.try_take(total) {
            *bytes = total;
            return Ok(());
        }
        let is_kept = used.try_take(*bytes);
        debug_assert!(is_kept, "the share fitted before");
        Err(ReadError::Overloaded("the memory for reads is in use"))
    }
}

impl Drop for ReadShare {
    fn drop(&mut self) {
        self.used.lock().release(*self.bytes.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_share_is_released_when_its_last_reference_is_dropped() {
        let budget = ReadBudget::new(8 * MIB);
        let share = budget.start().unwrap();
        share.reserve(5 * MIB).unwrap();
        let other = budget.start().unwrap();
        assert!(matches!(other.reserve(2 * MIB), Err(ReadError::Overloaded(_))));
        let clone = Arc::clone(&share);
        drop(share);
        assert!(other.reserve(2 * MIB).is_err());
        drop(clone);
        other.reserve(5 * MIB).unwrap();
        drop(other);
        let used = budget.used.lock();
        assert_eq!((used.small, used.large), (0, 0));
    }

    #[test]
    fn a_result_larger_than_the_budget_is_admitted_alone() {
        let budget = ReadBudget::new(8 * MIB);
        let share = budget.start().unwrap();
        share.reserve(20 * MIB).unwrap();
        let other = budget.start().unwrap();
        assert!(other.reserve(MIB).is_err());
        drop(share);
        other.reserve(MIB).unwrap();
    }

    #[test]
    fn large_reads_leave_room_for_small_ones() {
        let budget = ReadBudget::new(8 * MIB);
        let large: Vec<_> = (0..6).map(|_| budget.start().unwrap()).collect();
        let has_room = |share: &Arc<ReadShare>| share.reserve(MIB).is_ok();
        assert_eq!(large.iter().filter(|share| has_room(share)).count(), 5);
        for _ in 0..3 {
            budget.start().unwrap().reserve(MAX_SMALL_BYTES - MIN_BYTES).unwrap();
        }
        let small: Vec<_> = (0..1000).map_while(|_| budget.start().ok()).collect();
        assert!(small.len() >= 200, "{}", small.len());
        assert!(small.len() < 1000, "small reads have a limit, too");
    }
}
