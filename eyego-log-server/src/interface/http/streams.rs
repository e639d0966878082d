//! Limits of responses that last: exports.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::read::ReadError;

/// Maximum number of exports at the same time. Each holds up to two pages and
/// runs one query at a time, so that other queries find room.
const MAX_EXPORTS: usize = 4;

/// Counts the responses that last. Each has a limit of its own.
#[derive(Debug)]
pub struct Streams {
    exports: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { exports: Arc::new(Semaphore::new(MAX_EXPORTS)) }
    }
}

impl Streams {
    /// Starts an export. Keep the permit until it has ended.
    ///
    /// # Errors
    /// Returns [`ReadError::Overloaded`] if too many exports are running.
    pub(super) fn start_export(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        Arc::clone(&self.exports)
            .try_acquire_owned()
            .map_err(|_| ReadError::Overloaded("the limit of 4 exports is reached"))
    }
}
