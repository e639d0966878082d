//! The outcome of re-reading a file that changes while the process runs.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::health::{PartHealth, PartState};

/// Time without a check after which readiness says so. A network file system that
/// does not respond can block a read for ever.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Whether the last change of a file took effect. `/health/ready` reports it.
#[derive(Debug)]
pub struct ReloadStatus {
    name: &'static str,
    warning: Mutex<Option<String>>,
    checked_at: Mutex<Instant>,
}

impl ReloadStatus {
    /// Creates the status of the part `name`, without a warning.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, warning: Mutex::new(None), checked_at: Mutex::new(Instant::now()) }
    }

    /// Sets the outcome of the last reload: `Err` if the file has an error and the
    /// previous content stays in effect.
    pub fn set(&self, outcome: Result<(), String>) {
        *self.warning.lock() = outcome.err();
    }

    /// Notes that the file was read, or could not be read, at `now`.
    pub fn note_check(&self, now: Instant) {
        *self.checked_at.lock() = now;
    }

    /// Returns the health of the part at `now`.
    #[must_use]
    pub fn health(&self, now: Instant) -> PartHealth {
        let age = now.saturating_duration_since(*self.checked_at.lock());
        let state = if age > MAX_AGE {
            let seconds = age.as_secs();
            let reason = format!(
                "the file was last read {seconds} s ago: its file system does not respond, and \
                 changes have no effect"
            );
            PartState::Warning(reason)
        } else {
            self.warning.lock().clone().map_or(PartState::Up, PartState::Warning)
        };
        PartHealth { name: self.name, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_longer_read_is_a_warning() {
        let status = ReloadStatus::new("keys");
        let now = Instant::now();
        status.note_check(now);
        assert_eq!(status.health(now + MAX_AGE).state, PartState::Up);
        let later = now + Duration::from_secs(31);
        assert!(matches!(status.health(later).state, PartState::Warning(_)));
        status.note_check(later);
        assert_eq!(status.health(later).state, PartState::Up);
    }
}
