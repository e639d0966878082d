//! Batches on disk, so that they outlive the process: written before they are
//! sent, read again by the next process, deleted when their events are settled
//! (feature `spool`).
//!
//! Here is what the rest of the client sees of it. When a batch goes through
//! the spool, and what of it stays in memory, is decided in `feed`.

#[cfg(feature = "spool")]
mod files;
#[cfg(feature = "spool")]
mod format;
#[cfg(not(feature = "spool"))]
mod off;
#[cfg(feature = "spool")]
mod segment;

#[cfg(feature = "spool")]
pub(crate) use files::{Spool, SpoolOptions};
#[cfg(not(feature = "spool"))]
pub(crate) use off::{Spool, SpoolOptions};

/// How many records and events there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) records: u64,
    pub(crate) events: u64,
}

impl Extent {
    /// One record.
    pub(crate) fn record(events: u64) -> Self {
        Self { records: 1, events }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.events += other.events;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.records = self.records.saturating_sub(other.records);
        self.events = self.events.saturating_sub(other.events);
    }
}

/// What an earlier process left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// What is to be read.
    pub(crate) found: Extent,
    /// Events that are damaged, as far as they can be counted.
    pub(crate) damaged: u64,
    /// Which file is damaged, for people.
    pub(crate) message: String,
}

/// The next record, as it was read.
#[cfg_attr(not(feature = "spool"), expect(dead_code, reason = "nothing is ever read"))]
#[derive(Debug)]
pub(crate) enum Unread {
    Lines {
        segment: u64,
        lines: Vec<u8>,
    },
    /// It cannot be read, or it and all behind it in its file cannot.
    Lost {
        segment: u64,
        lost: Extent,
        message: String,
    },
}
