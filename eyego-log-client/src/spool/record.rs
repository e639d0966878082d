//! What the spool returns: counts of records and events, and records themselves.

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
        self.records = self.records.saturating_sub(other.records);
        self.events = self.events.saturating_sub(other.events);
    }
}

/// What an earlier process left in the spool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The records that can be read.
    pub(crate) found: Extent,
    /// The number of damaged events, as far as it can be determined.
    pub(crate) damaged: u64,
    /// Says which file is damaged, for people.
    pub(crate) message: String,
}

/// The next unread record.
#[cfg_attr(not(feature = "spool"), expect(dead_code, reason = "nothing is ever read"))]
#[derive(Debug)]
pub(crate) enum Unread {
    Lines {
        segment: u64,
        lines: Vec<u8>,
    },
    /// The record, or the rest of its file, cannot be read.
    Lost {
        segment: u64,
        lost: Extent,
        message: String,
    },
}
