//! What became of the events: the counts, the reasons for a loss, the hook
//! that is told. The bookkeeping itself is in `ledger`.

use std::fmt;
use std::sync::Arc;

use eyego_log_core::LogId;

use crate::encode::id_of_line;

/// Why an event was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The buffer was full.
    Overflow,
    /// The server found faults in it.
    Invalid,
    /// It is larger than the server takes, even alone.
    TooLarge,
    /// The server does not know the API key (401) or does not let it write
    /// (403).
    Unauthorized,
    /// The server refused the request for another reason that no retry mends,
    /// such as 404 where the URL is wrong.
    Refused,
    /// The attempts went on failing until the delivery timeout.
    Expired,
    /// As `Expired`, and the last answer made no sense.
    Nonsense,
    /// The client was shut down before it could be delivered.
    Shutdown,
    /// The worker thread died and could not be restarted.
    Worker,
    /// A file of the spool is damaged, or cannot be read any more. How many
    /// events were in it is then an estimate.
    Damaged,
}

impl LossReason {
    /// Every reason, in the order of [`Stats`].
    pub const ALL: [Self; 10] = [
        Self::Overflow,
        Self::Invalid,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Refused,
        Self::Expired,
        Self::Nonsense,
        Self::Shutdown,
        Self::Worker,
        Self::Damaged,
    ];

    /// The reason as a word for metrics, such as `overflow`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Nonsense => "nonsense",
            Self::Shutdown => "shutdown",
            Self::Worker => "worker",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many events were lost, by reason.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses([u64; LossReason::ALL.len()]);

impl Losses {
    /// How many were lost for this reason.
    #[must_use]
    pub fn get(&self, reason: LossReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were lost for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each reason with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (LossReason, u64)> + '_ {
        LossReason::ALL.into_iter().zip(self.0)
    }

    pub(crate) fn add(&mut self, reason: LossReason, count: u64) {
        self.0[reason as usize] += count;
    }
}

impl fmt::Debug for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0)).finish()
    }
}

/// What became of the events so far: one consistent look.
///
/// `accepted == delivered + pending + lost.total()`, always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events that were handed over and had no fault. One that found no room
    /// is among them, and among `lost`.
    pub accepted: u64,
    /// Events that the server holds durably.
    pub delivered: u64,
    /// Events that wait, are under way or are to be tried again; after a
    /// shutdown those that stay in the spool for the next process.
    pub pending: u64,
    /// What those occupy of the buffer, in bytes; not what is in the spool
    /// alone.
    pub pending_bytes: usize,
    /// Events that never reached the server, by reason.
    pub lost: Losses,
    /// Requests that were sent with events, the repeated ones included.
    pub requests: u64,
    /// Of those, requests that failed in a way that a retry may mend.
    pub failed_requests: u64,
    /// Of those, requests whose answer made no sense.
    pub nonsense_answers: u64,
    /// Of the accepted events, those that an earlier process left in the
    /// spool. Some may have been delivered by it: their ids keep them from
    /// being stored twice.
    pub recovered: u64,
    /// Events that were sent without a place in the spool, since it was full
    /// or could not be written. 0 without a spool.
    pub unspooled: u64,
    /// Bytes that the files of the spool occupy.
    pub spool_bytes: u64,
    /// How often the worker panicked and was restarted.
    pub worker_restarts: u64,
    /// The last thing that went wrong, in words; `None` if nothing ever did.
    pub last_problem: Option<String>,
}

impl Stats {
    /// Whether the law above holds. It always does; this is for tests.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.delivered + self.pending + self.lost.total()
    }
}

/// Events that are lost, as the hook is told of them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lost<'a> {
    /// Why.
    pub reason: LossReason,
    /// The same for people, with what the server said if it said anything.
    pub message: &'a str,
    pub(crate) lines: Lines<'a>,
    /// Events that can no longer be shown.
    pub(crate) unreadable: u64,
}

impl<'a> Lost<'a> {
    /// How many there are: one or more.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.ends.len() + usize::try_from(self.unreadable).unwrap_or(usize::MAX)
    }

    /// The events. Those of a damaged spool ([`LossReason::Damaged`]) are
    /// counted but cannot be shown.
    pub fn events(&self) -> impl Iterator<Item = LostEvent<'a>> + 'a {
        self.lines.iter().map(LostEvent)
    }
}

/// Lines that stand one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where each ends, behind its line break.
    pub(crate) ends: &'a [u32],
}

impl<'a> Lines<'a> {
    pub(crate) fn get(self, index: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.ends.len()).filter_map(move |index| self.get(index))
    }
}

/// One event that is lost.
#[derive(Debug, Clone, Copy)]
pub struct LostEvent<'a>(&'a [u8]);

impl<'a> LostEvent<'a> {
    /// The event as it would have been sent: a JSON object with `id`,
    /// `timestamp`, `userId`, `action` and `metadata`. Posted to
    /// `/api/v1/logs` later, by whatever means, it is stored under its id.
    #[must_use]
    pub fn json(&self) -> &'a str {
        std::str::from_utf8(self.0.trim_ascii_end()).unwrap_or_default()
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> Option<LogId> {
        id_of_line(self.0)
    }
}

/// Told of each loss; see [`Builder::on_loss`](crate::Builder::on_loss).
pub(crate) type LossHook = Arc<dyn Fn(&Lost<'_>) + Send + Sync>;

/// Told of each problem; see [`Builder::on_problem`](crate::Builder::on_problem).
pub(crate) type ProblemHook = Arc<dyn Fn(&str) + Send + Sync>;
