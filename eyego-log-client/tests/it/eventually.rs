//! Polls for a condition instead of sleeping.

use std::time::{Duration, Instant};

/// How long a test waits for anything.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Blocks until `condition` is true. The servers of these tests run on their own
/// threads, so they make progress meanwhile.
///
/// # Panics
/// Panics after [`TIMEOUT`].
#[track_caller]
pub(crate) fn eventually(expectation: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {expectation}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
