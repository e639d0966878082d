//! What callers with deadlines ask of the worker.

use std::time::Instant;

use crate::pipeline::deadlines::Deadlines;

/// What callers with deadlines ask of the worker.
#[derive(Debug, Default)]
pub(crate) struct Urgency {
    /// A caller began to wait, so an attempt is wanted even if requests are
    /// paused.
    pub(crate) attempt_wanted: bool,
    /// When callers stop waiting.
    pub(crate) deadlines: Deadlines,
}

impl Urgency {
    pub(super) fn add(&mut self, deadline: Instant) {
        self.attempt_wanted = true;
        self.deadlines.add(deadline);
    }
}
