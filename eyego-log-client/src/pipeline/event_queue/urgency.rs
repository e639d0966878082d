//! What callers with deadlines ask of the worker.

use std::time::Instant;

/// What callers with deadlines ask of the worker.
#[derive(Debug, Default)]
pub(crate) struct Urgency {
    /// A caller began to wait, so an attempt is wanted even if requests are
    /// paused.
    pub(crate) attempt_wanted: bool,
    /// When callers stop waiting.
    pub(crate) deadlines: Vec<Instant>,
}

impl Urgency {
    /// The number of deadlines that are kept apart.
    const MAX_DEADLINES: usize = 64;

    pub(super) fn add(&mut self, deadline: Instant) {
        self.attempt_wanted = true;
        if self.deadlines.len() < Self::MAX_DEADLINES {
            self.deadlines.push(deadline);
        } else if let Some(last) = self.deadlines.last_mut() {
            *last = deadline.max(*last);
        }
    }
}
