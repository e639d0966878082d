//! What the run did and how far it is: kept, and shown at once to whoever wants to watch.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// What a run tells.
#[derive(Debug)]
pub struct Journal {
    began: Instant,
    is_shown: bool,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    lines: Vec<String>,
    done: BTreeMap<String, u64>,
}

impl Journal {
    /// An empty one; `is_shown`: each line goes to stdout as well.
    #[must_use]
    pub fn new(is_shown: bool) -> Self {
        Self { began: Instant::now(), is_shown, entries: Mutex::default() }
    }

    #[expect(clippy::print_stdout, reason = "whoever runs this wants to watch it")]
    pub(super) fn say(&self, text: impl AsRef<str>) {
        let line = format!("{:6.1} s  {}", self.began.elapsed().as_secs_f64(), text.as_ref());
        if self.is_shown {
            println!("{line}");
        }
        self.slot().lines.push(line);
    }

    /// A fault of this kind is over.
    pub(super) fn count(&self, what: String) {
        *self.slot().done.entry(what).or_default() += 1;
    }

    /// How often each kind of fault took place.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.slot().done.clone()
    }

    /// Everything that was said.
    #[must_use]
    pub fn text(&self) -> String {
        self.slot().lines.join("\n")
    }

    fn slot(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
