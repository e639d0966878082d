//! Detects that the process was forked. The child has a copy of the client's
//! memory but none of its threads, and a lock can be held by a thread that does
//! not exist there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a result is reused. Reading the process id is a system call. A fork
/// takes longer than this, so the first call in a child always reads it.
const REUSE: Duration = Duration::from_micros(20);

/// Remembers the process in which a client was built.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    is_child: AtomicBool,
    /// When the process id was last read, in nanoseconds since 1970.
    checked_at: AtomicU64,
    /// Events that were logged in a child, where nothing delivers them.
    lost: AtomicU64,
}

impl Process {
    pub(crate) fn current() -> Self {
        Self {
            id: std::process::id(),
            is_child: AtomicBool::new(false),
            checked_at: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Returns whether this is a child of the process that built the client.
    pub(crate) fn is_forked(&self) -> bool {
        if self.is_child.load(Ordering::Relaxed) {
            return true;
        }
        let is_child = std::process::id() != self.id;
        self.is_child.store(is_child, Ordering::Relaxed);
        is_child
    }

    /// Like [`is_forked`](Self::is_forked), but reads the process id only if it
    /// was not read shortly before now, which is `since_epoch` after 1970.
    pub(crate) fn is_forked_at(&self, since_epoch: Duration) -> bool {
        let nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let checked_at = self.checked_at.load(Ordering::Relaxed);
        if u128::from(nanos.abs_diff(checked_at)) < REUSE.as_nanos() {
            return self.is_child.load(Ordering::Relaxed);
        }
        self.checked_at.store(nanos, Ordering::Relaxed);
        self.is_forked()
    }

    /// Counts an event that was logged in a child.
    pub(crate) fn lose_event(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of events that were logged in a child.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
