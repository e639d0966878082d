//! What the writer tells the others: where the queue ends, what is committed,
//! and how it is. No I/O.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::domain::health::PartState;
use crate::domain::queue::Offset;

/// Shared between the writer, the callers and the subscription; written once
/// per transaction.
#[derive(Debug)]
pub(super) struct Status {
    /// What the log calls the queue.
    name: &'static str,
    facts: Mutex<Facts>,
    grown: Condvar,
    pub(super) has_subscriber: AtomicBool,
}

#[derive(Debug, Default)]
struct Facts {
    positions: Positions,
    trouble: Option<String>,
}

/// Where the queue stands, durably.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    /// The offset that the next record gets.
    pub(super) end: Offset,
    /// The offset at which consumption goes on after a restart.
    pub(super) committed: Offset,
}

impl Positions {
    /// How many records are not committed.
    pub(super) fn backlog(self) -> u64 {
        u64::try_from(self.end - self.committed).unwrap_or(0)
    }
}

impl Status {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            facts: Mutex::default(),
            grown: Condvar::new(),
            has_subscriber: AtomicBool::new(false),
        }
    }

    pub(super) fn positions(&self) -> Positions {
        self.facts.lock().positions
    }

    /// Says that a transaction is durable, and wakes a waiting subscription.
    pub(super) fn advance(&self, positions: Positions) {
        let mut facts = self.facts.lock();
        let has_grown = positions.end != facts.positions.end;
        facts.positions = positions;
        drop(facts);
        if has_grown {
            self.grown.notify_all();
        }
    }

    /// Waits until there is a record from this offset on; `false` when the
    /// time is up.
    pub(super) fn wait_for(&self, offset: Offset, timeout: Duration) -> bool {
        let mut facts = self.facts.lock();
        let is_short = |facts: &mut Facts| facts.positions.end <= offset;
        self.grown.wait_while_for(&mut facts, is_short, timeout);
        facts.positions.end > offset
    }

    /// Says what is wrong, or that nothing is.
    pub(super) fn report(&self, trouble: Option<String>) {
        let mut facts = self.facts.lock();
        if facts.trouble == trouble {
            return;
        }
        match &trouble {
            Some(trouble) => {
                tracing::error!(queue = self.name, trouble, "the file cannot take records");
            }
            None => tracing::info!(queue = self.name, "the file takes records again"),
        }
        facts.trouble = trouble;
    }

    pub(super) fn state(&self) -> PartState {
        self.facts.lock().trouble.clone().map_or(PartState::Up, PartState::Down)
    }
}
