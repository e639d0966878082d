//! The positions at which records are appended and consumed.

use crate::domain::queue::Offset;

/// The durable positions of the queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    /// Offset of the next record to be appended.
    pub(super) end: Offset,
    /// Offset at which consumption resumes after a restart.
    pub(super) committed: Offset,
}

impl Positions {
    /// Returns the number of uncommitted records.
    pub(super) fn backlog(self) -> u64 {
        u64::try_from(self.end - self.committed).unwrap_or(0)
    }
}
