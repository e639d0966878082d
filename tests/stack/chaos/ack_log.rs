//! The ack log: which events were acknowledged, in four bytes per event, and the violations that
//! callers observed.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::violations::Violations;

/// Callers write into it, and the oracle reads it.
#[derive(Debug)]
pub(super) struct AckLog {
    pub(super) seed: u64,
    /// By event number: a fingerprint of the id under which the event was acknowledged, or 0.
    acknowledged: Vec<AtomicU32>,
    /// By number: whether the topic contains this poison message.
    poison: Vec<AtomicBool>,
    violations: Mutex<Violations>,
    pub(super) counts: Counts,
}

/// What the callers counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Acknowledged events.
    pub(super) acknowledged: AtomicU64,
    pub(super) requests: AtomicU64,
    /// Responses with status 207.
    pub(super) partial: AtomicU64,
    /// Responses with status 503.
    pub(super) unavailable: AtomicU64,
    /// Requests without a response.
    pub(super) broken: AtomicU64,
    /// Events whose caller did not retry.
    pub(super) given_up: AtomicU64,
}

impl AckLog {
    pub(super) fn new(seed: u64, events: u64, poison: u64) -> Self {
        Self {
            seed,
            acknowledged: (0..events).map(|_| AtomicU32::new(0)).collect(),
            poison: (0..poison).map(|_| AtomicBool::new(false)).collect(),
            violations: Mutex::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn events(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Returns the number of poison messages.
    pub(super) fn poison(&self) -> u64 {
        self.poison.len() as u64
    }

    /// Notes that event `n` was acknowledged under this id. A second acknowledgement must have the
    /// same id.
    pub(super) fn acknowledge(&self, n: u64, id: &str) {
        let Some(slot) = self.acknowledged.get(index(n)) else { return };
        let known = slot.swap(fingerprint(id), Ordering::Relaxed);
        if known == 0 {
            self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else if known != fingerprint(id) {
            self.report(format!("event {n} was acknowledged under two ids, the later is {id}"));
        }
    }

    /// Returns the fingerprint of the id under which event `n` was acknowledged.
    pub(super) fn acknowledged(&self, n: u64) -> Option<u32> {
        let known = self.acknowledged.get(index(n))?.load(Ordering::Relaxed);
        (known != 0).then_some(known)
    }

    /// Notes that the topic contains poison message `n`.
    pub(super) fn poison_sent(&self, n: u64) {
        if let Some(slot) = self.poison.get(index(n)) {
            slot.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_poison_sent(&self, n: u64) -> bool {
        self.poison.get(index(n)).is_some_and(|slot| slot.load(Ordering::Relaxed))
    }

    /// Adds a violation.
    pub(super) fn report(&self, violation: impl Into<String>) {
        self.slot().add(violation);
    }

    pub(super) fn violations(&self) -> Violations {
        self.slot().clone()
    }

    fn slot(&self) -> MutexGuard<'_, Violations> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Returns a hash of an id; never 0.
pub(super) fn fingerprint(id: &str) -> u32 {
    crc32fast::hash(id.as_bytes()).max(1)
}
