//! The outcome of re-reading a file that changes while the process runs.

use parking_lot::Mutex;

use crate::domain::health::{PartHealth, PartState};

/// Whether the last change of a file took effect. `/health/ready` reports it.
#[derive(Debug)]
pub struct ReloadStatus {
    name: &'static str,
    warning: Mutex<Option<String>>,
}

impl ReloadStatus {
    /// Creates the status of the part `name`, without a warning.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, warning: Mutex::new(None) }
    }

    /// Sets the outcome of the last reload: `Err` if the file has an error and the
    /// previous content stays in effect.
    pub fn set(&self, outcome: Result<(), String>) {
        *self.warning.lock() = outcome.err();
    }

    /// Returns the health of the part.
    #[must_use]
    pub fn health(&self) -> PartHealth {
        let state = self.warning.lock().clone().map_or(PartState::Up, PartState::Warning);
        PartHealth { name: self.name, state }
    }
}
