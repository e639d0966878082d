//! The circuit breaker: whether records go to the queue or straight to the
//! spool. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// Interval at which a queue that failed is tried again.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// State of the circuit.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Time of the last failure; `None` while the circuit is closed.
    failed_at: Option<Instant>,
}

impl Breaker {
    /// Returns `true` if the queue failed the last time it was tried.
    pub(super) fn is_open(&self) -> bool {
        self.failed_at.is_some()
    }

    /// Returns the time until the queue is tried again, or `None` if it can be
    /// tried now.
    pub(super) fn remaining_pause(&self, now: Instant) -> Option<Duration> {
        let next = self.failed_at? + PROBE_INTERVAL;
        Some(next.saturating_duration_since(now)).filter(|pause| !pause.is_zero())
    }

    /// Records a failure. Returns `true` if it opens the circuit.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        self.failed_at.replace(now).is_none()
    }

    /// Records a success. Returns `true` if it closes the circuit.
    pub(super) fn succeed(&mut self) -> bool {
        self.failed_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_opens_the_circuit_and_success_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        assert!(!breaker.is_open());
        assert_eq!(breaker.remaining_pause(start), None);
        assert!(breaker.fail(start));
        assert!(!breaker.fail(start), "already open");
        assert!(breaker.is_open());
        assert!(breaker.succeed());
        assert!(!breaker.succeed(), "already closed");
        assert!(!breaker.is_open());
    }

    #[test]
    fn each_failure_starts_a_new_pause() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        breaker.fail(start);
        assert_eq!(breaker.remaining_pause(start), Some(PROBE_INTERVAL));
        assert_eq!(breaker.remaining_pause(start + PROBE_INTERVAL), None);
        breaker.fail(start + PROBE_INTERVAL);
        assert_eq!(breaker.remaining_pause(start + PROBE_INTERVAL), Some(PROBE_INTERVAL));
    }
}
