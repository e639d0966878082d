//! The result of a flush or a shutdown.

use crate::model::stats::Stats;

/// The result of a [`flush`](crate::Client::flush) or [`shutdown`](crate::Client::shutdown).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the report says whether the events were delivered"]
pub struct Report {
    /// The number of events that were not settled in time. After a flush they
    /// are still pending. After a shutdown they are lost, or pending in the
    /// spool until the next process delivers them.
    pub unsettled: u64,
    /// The counts of all events since the client was built.
    pub stats: Stats,
}

impl Report {
    /// Returns whether every event that the call covered was settled in time:
    /// it was either delivered, or lost for a reason that `stats.lost` counts.
    ///
    /// This can be true although events were lost; see
    /// [`all_delivered`](Self::all_delivered).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Returns whether every event that the call covered was delivered, and no
    /// event has been lost since the client was built.
    #[must_use]
    pub fn all_delivered(&self) -> bool {
        self.is_settled() && self.stats.lost.total() == 0
    }
}
