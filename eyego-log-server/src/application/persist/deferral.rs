//! When storing gives way to requests (pure).
//!
//! Both work on the same cores. What is queued is durable, so that it may wait
//! there while requests need the machine: they are answered sooner, and more of
//! them (measured on 2 cores: 66,000 a second instead of 52,000).

use std::sync::Arc;
use std::time::{Duration, Instant};

use eyego_log_core::Timestamp;

/// The requests that the same process answers.
pub trait Requests: Send + Sync {
    /// For how long, since the start, each of the threads that answer them was
    /// at work, on average.
    fn busy(&self) -> Duration;

    /// Whether a caller waits for its log to be stored.
    fn await_storing(&self) -> bool;
}

/// Requests need the machine once their threads are at work for more than this
/// share of the time. Where 2 cores also run the callers it is a half when no
/// more requests can be answered, and grows when storing gives way.
const HIGH: f64 = 0.4;

/// They do until it is less than this, so that there is room for what has
/// waited: storing that comes and goes is worse for them than one that stays
/// (measured at 45,000 a second, in turn: p99 56 to 395 ms, and 44 to 100).
const LOW: f64 = 0.3;

/// How often the share is taken, and for about how long it counts.
const INTERVAL: Duration = Duration::from_millis(100);
const MEMORY: Duration = Duration::from_millis(400);

/// The queue is a buffer for this share of its room; the rest is for a store
/// that does not work.
const MAX_FILL: f64 = 1.0 / 8.0;

/// Whether storing gives way, and for how long.
pub(super) struct Deferral {
    requests: Arc<dyn Requests>,
    max_delay: Duration,
    pressure: Pressure,
}

impl Deferral {
    pub(super) fn new(requests: Arc<dyn Requests>, max_delay: Duration) -> Self {
        Self { requests, max_delay, pressure: Pressure::default() }
    }

    /// To be called several times a second, whatever is queued.
    pub(super) fn observe(&mut self, now: Instant) {
        self.pressure.observe(now, self.requests.busy());
    }

    /// Whether a record that the queue took then waits on: requests need the
    /// machine, nobody waits for its being stored, it is not older than the
    /// delay, and the queue has room.
    pub(super) fn applies_to(
        &self,
        queued_at: Timestamp,
        now: Timestamp,
        fill: Option<f64>,
    ) -> bool {
        self.pressure.is_high
            && !self.requests.await_storing()
            // Of the future: the clock was set back, and its age is not known.
            && now.duration_since(queued_at).is_some_and(|age| age < self.max_delay)
            && fill.is_some_and(|fill| fill < MAX_FILL)
    }
}

/// How much of the machine requests need.
#[derive(Debug, Default)]
struct Pressure {
    /// When it was looked at last, and how long they had been at work.
    last: Option<(Instant, Duration)>,
    /// Which share of the time they were at work lately.
    share: f64,
    is_high: bool,
}

impl Pressure {
    fn observe(&mut self, now: Instant, busy: Duration) {
        let Some((then, was)) = self.last else {
            self.last = Some((now, busy));
            return;
        };
        let passed = now.saturating_duration_since(then);
        if passed < INTERVAL {
            return;
        }
        self.last = Some((now, busy));
        let share = busy.saturating_sub(was).div_duration_f64(passed);
        self.share += (share - self.share) * passed.div_duration_f64(MEMORY).min(1.0);
        self.is_high = self.share > if self.is_high { LOW } else { HIGH };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pressure after threads were at work for so many tenths of a second.
    fn after(tenths: &[f64]) -> Pressure {
        let (mut now, mut busy) = (Instant::now(), Duration::from_secs(100));
        let mut pressure = Pressure::default();
        pressure.observe(now, busy);
        for share in tenths {
            // Looked at more often than counts.
            for _ in 0..4 {
                now += INTERVAL / 4;
                busy += (INTERVAL / 4).mul_f64(*share);
                pressure.observe(now, busy);
            }
        }
        pressure
    }

    #[test]
    fn load_that_lasts_is_pressure_and_a_moment_is_not() {
        assert!(!after(&[]).is_high);
        assert!(!after(&[0.35; 100]).is_high);
        assert!(!after(&[0.0, 1.0, 0.0, 0.0]).is_high);
        assert!(after(&[0.6; 6]).is_high);
        assert!(after(&[[0.6; 100], [0.35; 100]].concat()).is_high);
        assert!(!after(&[[0.6; 100], [0.25; 100]].concat()).is_high);
        assert!(!after(&[0.9, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0]).is_high);
    }

    #[test]
    fn after_a_long_pause_only_what_was_since_counts() {
        let start = Instant::now();
        let mut pressure = Pressure::default();
        pressure.observe(start, Duration::ZERO);
        pressure.observe(start + Duration::from_secs(10), Duration::from_secs(9));
        assert!(pressure.is_high);
        pressure.observe(start + Duration::from_secs(20), Duration::from_secs(10));
        assert!(!pressure.is_high);
    }

    struct Fixture {
        awaits_storing: bool,
    }

    impl Requests for Fixture {
        fn busy(&self) -> Duration {
            Duration::ZERO
        }

        fn await_storing(&self) -> bool {
            self.awaits_storing
        }
    }

    fn deferral(pressure: Pressure, awaits_storing: bool) -> Deferral {
        let requests = Arc::new(Fixture { awaits_storing });
        Deferral { requests, max_delay: Duration::from_secs(10), pressure }
    }

    #[test]
    fn a_record_waits_while_it_is_young_and_the_queue_has_room() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let deferral = deferral(after(&[0.6; 6]), false);
        let waits = |now, fill| deferral.applies_to(at(50_000), at(now), fill);
        assert!(waits(50_000, Some(0.0)));
        assert!(waits(59_999, Some(0.1)));
        assert!(!waits(60_000, Some(0.1)), "old");
        assert!(!waits(49_999, Some(0.1)), "of the future");
        assert!(!waits(50_000, Some(0.2)), "the queue fills up");
        assert!(!waits(50_000, None), "nobody knows how full the queue is");
    }

    #[test]
    fn a_record_waits_only_for_requests_and_not_while_its_caller_waits() {
        let at = Timestamp::from_millis(50_000).unwrap();
        let waits = |deferral: Deferral| deferral.applies_to(at, at, Some(0.0));
        assert!(waits(deferral(after(&[0.6; 6]), false)));
        assert!(!waits(deferral(after(&[0.1; 6]), false)));
        assert!(!waits(deferral(after(&[0.6; 6]), true)));
    }
}
