//! The journal of a run: its actions and its progress, kept and optionally printed at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The journal of a run.
#[derive(Debug)]
pub struct Journal {
    began: Instant,
    is_shown: bool,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    lines: Vec<String>,
    faults: BTreeMap<String, u64>,
}

impl Journal {
    /// Creates an empty journal. If `is_shown`, each line is also printed to stdout.
    #[must_use]
    pub fn new(is_shown: bool) -> Self {
        Self { began: Instant::now(), is_shown, entries: Mutex::default() }
    }

    #[expect(clippy::print_stdout, reason = "shows the progress to the user")]
    pub(super) fn note(&self, text: impl AsRef<str>) {
        let line = format!("{:6.1} s  {}", self.began.elapsed().as_secs_f64(), text.as_ref());
        if self.is_shown {
            println!("{line}");
        }
        self.slot().lines.push(line);
    }

    /// Counts a fault of this kind.
    pub(super) fn count(&self, fault: String) {
        *self.slot().faults.entry(fault).or_default() += 1;
    }

    /// Returns how often each kind of fault was injected.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.slot().faults.clone()
    }

    /// Returns all lines.
    #[must_use]
    pub fn text(&self) -> String {
        self.slot().lines.join("\n")
    }

    fn slot(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
