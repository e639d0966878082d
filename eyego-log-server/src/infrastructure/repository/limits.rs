//! Limits of concurrent reads (ADR 0025). Each kind of read has its own, so that
//! expensive ones never delay cheap ones.

use std::sync::Arc;
use std::time::Duration;

use eyego_log_core::LogQuery;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::domain::read::ReadError;

/// Maximum time that a read waits for others of its kind.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Maximum duration of a read, without that wait.
pub(super) const MAX_READ_TIME: Duration = Duration::from_secs(10);

/// Kinds of reads, by their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadKind {
    /// Reads one row.
    ById,
    /// Reads a range of an index: the cost depends on the page only.
    Range,
    /// May examine any number of rows to find those of a page.
    Scan,
    /// Holds or decodes a large row. Needed in addition to one of the others.
    Large,
}

impl ReadKind {
    pub(super) fn of(query: &LogQuery) -> Self {
        // No index begins with a user and an action, or contains the metadata.
        let is_range = query.user_id.is_none() || query.action.is_none();
        if is_range && query.metadata.is_empty() { Self::Range } else { Self::Scan }
    }
}

/// Maximum number of concurrent reads of each kind.
pub(super) struct ReadLimits {
    by_id: Arc<Semaphore>,
    ranges: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Maximum number of concurrent reads that hold a large row.
const LARGE_READS: usize = 2;

impl ReadLimits {
    pub(super) fn new(by_id: usize, ranges: usize, scans: usize) -> Self {
        let new = |permits| Arc::new(Semaphore::new(permits));
        Self { by_id: new(by_id), ranges: new(ranges), scans: new(scans), large: new(LARGE_READS) }
    }

    /// Waits briefly until a read of this kind may begin. Keep the permit until it
    /// has ended.
    ///
    /// # Errors
    /// Returns an error if too many reads of this kind are running, or if the
    /// store is closed.
    pub(super) async fn acquire(&self, kind: ReadKind) -> Result<OwnedSemaphorePermit, ReadError> {
        let (permits, reason) = match kind {
            ReadKind::ById => (&self.by_id, "the limit of reads by id is reached"),
            ReadKind::Range => (&self.ranges, "the limit of queries is reached"),
            ReadKind::Scan => (
                &self.scans,
                "the limit of queries by metadata or by user and action, or of counts, is reached",
            ),
            ReadKind::Large => (&self.large, "the limit of reads of large events is reached"),
        };
        match timeout(MAX_WAIT, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ReadError::Unavailable("the store is closed".to_owned())),
            Err(_) => Err(ReadError::Overloaded(reason)),
        }
    }

    /// Rejects all further reads.
    pub(super) fn close(&self) {
        for permits in [&self.by_id, &self.ranges, &self.scans, &self.large] {
            permits.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kinds_of_reads_do_not_delay_each_other() {
        let limits = ReadLimits::new(1, 1, 1);
        let _scan = limits.acquire(ReadKind::Scan).await.unwrap();
        let refused = limits.acquire(ReadKind::Scan).await;
        assert!(matches!(refused, Err(ReadError::Overloaded(_))), "{refused:?}");
        let _range = limits.acquire(ReadKind::Range).await.unwrap();
        let _by_id = limits.acquire(ReadKind::ById).await.unwrap();
        limits.close();
        let refused = limits.acquire(ReadKind::ById).await;
        assert!(matches!(refused, Err(ReadError::Unavailable(_))), "{refused:?}");
    }
}
