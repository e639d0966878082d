//! Holds readers back, so that the write-ahead log can be merged completely.
//!
//! The log restarts only at a moment when no reader needs it. Overlapping scans
//! leave no such moment, and the log would grow without end (ADR 0025).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{RwLock, RwLockReadGuard};

/// Readers enter the gate before they take a snapshot of the file.
#[derive(Default)]
pub(super) struct SnapshotGate {
    lock: RwLock<()>,
    is_closing: AtomicBool,
}

impl SnapshotGate {
    /// Waits until readers may take a snapshot. Returns `None` at `deadline`.
    pub(super) fn enter(&self, deadline: Instant) -> Option<RwLockReadGuard<'_, ()>> {
        self.lock.try_read_until(deadline)
    }

    /// Returns `true` if readers should give up their snapshot and enter again.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Runs `work` while no reader has a snapshot, unless that takes too long.
    pub(super) fn run_alone(&self, timeout: Duration, work: impl FnOnce()) {
        self.is_closing.store(true, Ordering::Relaxed);
        let alone = self.lock.try_write_for(timeout);
        self.is_closing.store(false, Ordering::Relaxed);
        if alone.is_some() {
            work();
        }
    }
}
