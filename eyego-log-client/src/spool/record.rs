//! What the spool returns: counts of records and events, and records themselves.

use std::time::Instant;

use crate::model::loss_reason::LossReason;

/// Why events expire that reach the maximum age of the spool.
pub(crate) const TOO_OLD: &str = "the events are older than spool_max_age";

/// A number of records and the events in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) records: u64,
    pub(crate) events: u64,
}

impl Extent {
    /// Creates the extent of one record.
    pub(crate) fn record(events: u64) -> Self {
        Self { records: 1, events }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.events += other.events;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        *self = self.without(other);
    }

    /// Returns what is left after `other` is removed. The counts can be estimates,
    /// so each of them is at least zero.
    pub(crate) fn without(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            events: self.events.saturating_sub(other.events),
        }
    }
}

/// What an earlier process left in the spool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The records that can be read.
    pub(crate) found: Extent,
    /// Events that cannot be read.
    pub(crate) lost: Vec<LostInFile>,
}

/// Events of one file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostInFile {
    pub(crate) reason: LossReason,
    /// The number of events, as far as it can be determined. At least 1.
    pub(crate) events: u64,
    /// Names the file, for people.
    pub(crate) message: String,
}

/// The next unread record.
#[cfg_attr(not(feature = "spool"), expect(dead_code, reason = "nothing is ever read"))]
#[derive(Debug)]
pub(crate) enum Unread {
    Lines {
        segment: u64,
        lines: Vec<u8>,
        /// When the events reach the maximum age of the spool.
        expires_at: Option<Instant>,
    },
    /// The record, or the rest of its file, is lost.
    Lost { lost: Extent, reason: LossReason, message: String },
    /// The record cannot be read at present, because descriptors or memory are
    /// missing.
    Unavailable { message: String },
}
