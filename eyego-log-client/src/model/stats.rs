//! The counts that a client keeps about its events.

use std::fmt;
use std::time::Duration;

use eyego_log_core::Timestamp;

use crate::model::loss_reason::LossReason;
use crate::model::problem::Problem;

/// The number of lost events for each [`LossReason`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct LossCounts([u64; LossReason::ALL.len()]);

impl LossCounts {
    /// Returns the number of events lost for `reason`.
    #[must_use]
    pub fn get(&self, reason: LossReason) -> u64 {
        self.0[reason as usize]
    }

    /// Returns the number of events lost for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Iterates over all reasons and their counts, including zeros.
    pub fn iter(&self) -> impl Iterator<Item = (LossReason, u64)> + '_ {
        LossReason::ALL.into_iter().zip(self.0)
    }

    pub(crate) fn add(&mut self, reason: LossReason, count: u64) {
        self.0[reason as usize] += count;
    }
}

impl fmt::Debug for LossCounts {
    /// Shows only the reasons that occurred.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0)).finish()
    }
}

/// A consistent snapshot of what has happened to all events since the client
/// was built.
///
/// `accepted == delivered + pending + lost.total()` always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Valid events that were handed to the client, including those that found
    /// the buffer full (they are also counted in `lost`).
    pub accepted: u64,
    /// Events that the server has acknowledged as durable.
    pub delivered: u64,
    /// Events that are buffered, in flight or awaiting a retry. After a
    /// shutdown: events that remain in the spool for the next process.
    pub pending: u64,
    /// Bytes of buffer memory that the pending events occupy. Events that are
    /// only in the spool do not count.
    pub pending_bytes: usize,
    /// Events that never reached the server, by reason.
    pub lost: LossCounts,
    /// Pending events that the server refused for now or failed with, while it
    /// accepted others. They are retried separately.
    pub refused: u64,
    /// Events that were rejected by the call itself because a field is invalid
    /// or the event is too large. They do not count as accepted.
    pub invalid: u64,
    /// Events that [`before_send`](crate::ClientBuilder::before_send) dropped, or
    /// during which it panicked. They do not count as accepted.
    pub filtered: u64,
    /// Events of users that [`sample_rate`](crate::ClientBuilder::sample_rate)
    /// excludes. They do not count as accepted.
    pub sampled_out: u64,
    /// Valid events that a disabled client discarded. They do not count as
    /// accepted.
    pub disabled: u64,
    /// Lost events that [`on_loss`](crate::ClientBuilder::on_loss) did not
    /// receive, because the function was too slow or logged events itself.
    /// Always 0 without that function.
    pub unreported: u64,
    /// Delivered events that [`on_delivery`](crate::ClientBuilder::on_delivery) did
    /// not receive, because the function was too slow. Always 0 without that
    /// function.
    pub unreported_deliveries: u64,
    /// Requests sent to deliver events, including retries. Those of queries do not
    /// count.
    pub requests: u64,
    /// Requests that failed but can be retried.
    pub failed_requests: u64,
    /// Bytes of the bodies of these requests, after compression.
    pub sent_bytes: u64,
    /// How long the finished ones of these requests took together, whether they
    /// succeeded or failed.
    pub request_time: Duration,
    /// How long the slowest of these requests took.
    pub max_request_time: Duration,
    /// When the server last accepted an event.
    pub last_success: Option<Timestamp>,
    /// Failed requests whose response did not come from an eyego-log server.
    pub unexpected_responses: u64,
    /// Accepted events that an earlier process left in the spool. That process
    /// may have delivered some of them already; their ids prevent duplicates.
    pub recovered: u64,
    /// Events sent without being spooled first because the spool was full or
    /// could not be written. Always 0 without a spool.
    pub unspooled: u64,
    /// Bytes that the spool files occupy on disk.
    pub spool_bytes: u64,
    /// Batches that were sent again in halves because the server refused them
    /// as a whole.
    pub split_batches: u64,
    /// How often the worker thread panicked and was restarted.
    pub worker_restarts: u64,
    /// The most recent problem that is not resolved. A problem with the server
    /// is resolved when the server accepts events again; one with single events
    /// when it has not occurred for 10 seconds.
    pub last_problem: Option<Problem>,
}

impl Stats {
    /// Returns whether `accepted == delivered + pending + lost.total()`. This
    /// always holds; the method exists for tests.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.delivered + self.pending + self.lost.total()
    }
}
