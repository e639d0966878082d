//! What was acknowledged, in four bytes an event, and what callers complain of.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::complaints::Complaints;

/// Callers write into it, the judge reads it.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) seed: u64,
    /// By number of the event: a fingerprint of the id under which it was acknowledged, or 0.
    acknowledged: Vec<AtomicU32>,
    /// By number: whether the topic has it.
    poison: Vec<AtomicBool>,
    complaints: Mutex<Complaints>,
    pub(super) counts: Counts,
}

/// What callers lived through.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) partly: AtomicU64,
    pub(super) unavailable: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) given_up: AtomicU64,
}

impl Ledger {
    pub(super) fn new(seed: u64, events: u64, poison: u64) -> Self {
        Self {
            seed,
            acknowledged: (0..events).map(|_| AtomicU32::new(0)).collect(),
            poison: (0..poison).map(|_| AtomicBool::new(false)).collect(),
            complaints: Mutex::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn events(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    pub(super) fn poison(&self) -> u64 {
        self.poison.len() as u64
    }

    /// The event of this number was acknowledged under this id. Twice is fine, under another id
    /// it is not.
    pub(super) fn acknowledge(&self, n: u64, id: &str) {
        let Some(slot) = self.acknowledged.get(index(n)) else { return };
        let known = slot.swap(fingerprint(id), Ordering::Relaxed);
        if known == 0 {
            self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else if known != fingerprint(id) {
            self.complain(format!("event {n} was acknowledged under two ids, the later is {id}"));
        }
    }

    /// The fingerprint of the id under which it was acknowledged, if it was.
    pub(super) fn acknowledged(&self, n: u64) -> Option<u32> {
        let known = self.acknowledged.get(index(n))?.load(Ordering::Relaxed);
        (known != 0).then_some(known)
    }

    pub(super) fn poisoned(&self, n: u64) {
        if let Some(slot) = self.poison.get(index(n)) {
            slot.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_poisoned(&self, n: u64) -> bool {
        self.poison.get(index(n)).is_some_and(|slot| slot.load(Ordering::Relaxed))
    }

    pub(super) fn complain(&self, complaint: impl Into<String>) {
        self.slot().add(complaint);
    }

    pub(super) fn complaints(&self) -> Complaints {
        self.slot().clone()
    }

    fn slot(&self) -> MutexGuard<'_, Complaints> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Four bytes that stand for an id; never 0. FNV-1a.
pub(super) fn fingerprint(id: &str) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    id.as_bytes().iter().fold(0x811C_9DC5, step).max(1)
}
