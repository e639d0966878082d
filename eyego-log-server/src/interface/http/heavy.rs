//! Work that is too long for the threads that serve requests (ADR 0023).

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::error::ApiError;

/// Size of a decompressed body, in bytes, above which it is parsed on a blocking
/// thread. The worst body of this size takes less than 5 ms.
pub(super) const MAX_LIGHT_BYTES: usize = 64 << 10;

/// Number of events of a batch above which it is parsed, and its response built, on
/// a blocking thread.
pub(super) const MAX_LIGHT_ITEMS: usize = 1000;

/// Maximum time for which heavy work waits to be started. With the time that the
/// queue may take, it stays below the API's limit of 8 s for ingest.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Runs decompression and the parsing of large bodies on blocking threads, one
/// per core.
#[derive(Debug, Clone)]
pub struct HeavyWork {
    slots: Arc<Semaphore>,
}

impl Default for HeavyWork {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self { slots: Arc::new(Semaphore::new(cores)) }
    }
}

/// Builds a large response on a blocking thread. It does not wait for a slot: its
/// events have an outcome already, which must be reported.
///
/// # Errors
/// Returns an error if `work` panics.
pub(super) async fn respond<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    join(tokio::task::spawn_blocking(work).await)
}

fn join<T>(joined: Result<T, tokio::task::JoinError>) -> Result<T, ApiError> {
    joined.map_err(|error| ApiError::internal(format!("work on a blocking thread failed: {error}")))
}

impl HeavyWork {
    /// Runs `work` on a blocking thread.
    ///
    /// # Errors
    /// Returns an error if no thread becomes free in time, or `work` panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let slot = Arc::clone(&self.slots).acquire_owned();
        let Ok(Ok(slot)) = tokio::time::timeout(MAX_WAIT, slot).await else {
            return Err(ApiError::busy("too many large bodies are being parsed; retry later"));
        };
        let work = move || {
            let result = work();
            drop(slot);
            result
        };
        join(tokio::task::spawn_blocking(work).await)
    }
}
