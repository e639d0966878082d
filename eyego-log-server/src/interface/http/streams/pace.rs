//! The rate at which all tails together are written, so that they leave the machine to
//! ingest (ADR 0044).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Maximum rate of all tails together, in bytes per second for each core.
const BYTES_PER_SECOND: u32 = 32 << 20;

/// Time without a limit after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Gives each piece of a tail its time. Tails take turns, because each waits for its own
/// piece before it makes the next one.
#[derive(Debug)]
pub(in crate::interface::http) struct TailPace {
    bytes_per_second: f64,
    /// When the next piece may be written.
    next: Mutex<Instant>,
}

impl Default for TailPace {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = u32::try_from(cores).unwrap_or(1);
        Self::new(f64::from(BYTES_PER_SECOND) * f64::from(cores))
    }
}

impl TailPace {
    fn new(bytes_per_second: f64) -> Self {
        Self { bytes_per_second, next: Mutex::new(Instant::now()) }
    }

    /// Waits until a piece of this size may be written.
    pub(in crate::interface::http) async fn wait(&self, bytes: usize) {
        let now = Instant::now();
        let due = self.reserve(bytes, now);
        if due > now {
            sleep_until(due).await;
        }
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "a piece is far below 2^52 bytes")]
        let duration = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let mut next = self.next.lock();
        let due = now.checked_sub(BURST).map_or(*next, |earliest| earliest.max(*next));
        *next = due + duration;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_spread_over_time_after_a_burst() {
        let pace = TailPace::new(1_000_000.0);
        let start = Instant::now() + Duration::from_secs(1);
        let wait_at = |millis| {
            let now = start + Duration::from_millis(millis);
            pace.reserve(50_000, now).saturating_duration_since(now).as_millis()
        };
        // A burst of 100 ms, and then 50 ms for each piece.
        assert_eq!([0, 0, 0, 0, 0].map(wait_at), [0, 0, 0, 50, 100]);
        assert_eq!([140, 200, 200].map(wait_at), [10, 0, 50]);
        assert_eq!([10_000, 10_000, 10_000, 10_000].map(wait_at), [0, 0, 0, 50]);
    }
}
