//! Which share of new batches the server accepts. It tells a batch that fails by
//! itself, because of an event in it, from a server that fails.

use crate::pipeline::batch::Batch;

/// The share is that of about this many new batches.
const WINDOW: u32 = 32;

#[derive(Debug, Default)]
pub(crate) struct Acceptance {
    /// The number of requests of which the server accepted at least one event.
    requests: u64,
    /// The number of requests that failed since the last accepted one, without those of
    /// which it was known that they fail by themselves.
    failures: u32,
    /// New batches of which the server accepted something at the first attempt,
    /// recently.
    accepted: u32,
    /// New batches whose first attempt failed, recently.
    failed: u32,
}

impl Acceptance {
    /// Returns how many requests the server has accepted.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Records that the server accepted a request.
    pub(crate) fn accept(&mut self, is_first_attempt: bool) {
        self.requests += 1;
        self.failures = 0;
        self.accepted += u32::from(is_first_attempt);
        self.forget();
    }

    /// Records that a request failed. Returns whether its batch is the reason and not the
    /// server: the server accepts at least half of the new batches, and has accepted
    /// something since the batch failed last or was sent for the first time. The first
    /// failure after an accepted request needs no such proof.
    pub(crate) fn fail(&mut self, batch: &Batch, is_first_attempt: bool) -> bool {
        self.failed += u32::from(is_first_attempt);
        self.forget();
        let is_known = batch.has_own_failures();
        let is_first = !is_known && self.failures == 0;
        self.failures = self.failures.saturating_add(u32::from(!is_known));
        (self.requests > batch.accepted_before || is_first) && self.is_good()
    }

    /// Returns whether the server accepts at least half of the new batches.
    pub(crate) fn is_good(&self) -> bool {
        self.accepted > 0 && self.accepted >= self.failed
    }

    fn forget(&mut self) {
        if self.accepted + self.failed >= WINDOW {
            self.accepted /= 2;
            self.failed /= 2;
        }
    }
}
