//! Waits until a queued event can be read, for `?wait=stored`.

use std::time::Duration;

use eyego_log_core::LogEntry;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::repository::{LogRepository, is_conflict};

/// Pause after the first lookup. It doubles after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest pause between two lookups.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Outcome of waiting for an event to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// The event can be read.
    Stored,
    /// A different event is stored under the id and is unchanged.
    Conflict,
    /// The event could not be read before the deadline.
    TimedOut,
}

/// Waits until `entry`, which is queued, can be read, or `deadline` passes. A
/// store that cannot be read is asked again until then.
pub async fn until_stored(
    repository: &dyn LogRepository,
    entry: &LogEntry,
    deadline: Instant,
) -> WaitOutcome {
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout_at(deadline, repository.get(entry.id)).await {
            Ok(Ok(Some(stored))) if is_conflict(&stored, entry) => return WaitOutcome::Conflict,
            Ok(Ok(Some(_))) => return WaitOutcome::Stored,
            Ok(Ok(None) | Err(_)) => {}
            Err(_) => return WaitOutcome::TimedOut,
        }
        let next = Instant::now() + pause;
        if next >= deadline {
            sleep_until(deadline).await;
            return WaitOutcome::TimedOut;
        }
        sleep_until(next).await;
        pause = (2 * pause).min(MAX_PAUSE);
    }
}
