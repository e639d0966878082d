//! Counters of the ingest path, and the histogram of durations.
//!
//! They are plain atomics, not a metrics library's types: a snapshot must be
//! consistent (see [`IngestCounts`]), and a histogram counts a whole batch in
//! one step. The interface encodes the snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::domain::queue::Durable;

/// Why an event, or a request body as a whole, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is invalid.
    Invalid,
    /// It is too large.
    TooLarge,
    /// Its media type or content encoding is not supported.
    Unsupported,
    /// It was received too slowly.
    TooSlow,
    /// The rate limit of its sender is used up.
    RateLimited,
    /// The queue, or the memory in front of it, is full.
    QueueFull,
    /// The queue did not acknowledge it.
    Unavailable,
    /// The client disconnected before the queue responded. The event may still be
    /// queued.
    Abandoned,
    /// An internal error occurred.
    Internal,
}

impl Refusal {
    /// All reasons. The position of each is its index in [`ByRefusal`].
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::TooLarge,
        Self::Unsupported,
        Self::TooSlow,
        Self::RateLimited,
        Self::QueueFull,
        Self::Unavailable,
        Self::Abandoned,
        Self::Internal,
    ];

    /// Returns the value of the `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::TooSlow => "too_slow",
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::Abandoned => "abandoned",
            Self::Internal => "internal",
        }
    }
}

/// One value per reason, in the order of [`Refusal::ALL`].
pub type ByRefusal<T> = [T; Refusal::ALL.len()];

/// Counts received events and their outcomes.
#[derive(Debug, Default)]
pub struct IngestCounters {
    received: AtomicU64,
    refused: ByRefusal<AtomicU64>,
    bodies_refused: ByRefusal<AtomicU64>,
    spooled: AtomicU64,
    /// Its count is also the number of queued events.
    queued_after: Histogram,
}

/// Snapshot of [`IngestCounters`].
///
/// `received` equals `queued + spooled + in_flight` plus the sum of `refused`.
#[derive(Debug, Clone)]
pub struct IngestCounts {
    /// Events received.
    pub received: u64,
    /// Events acknowledged by the queue.
    pub queued: u64,
    /// Events written to the spool.
    pub spooled: u64,
    /// Events refused.
    pub refused: ByRefusal<u64>,
    /// Events received but not yet acknowledged or refused.
    pub in_flight: u64,
    /// Bodies refused as a whole. Their events are not counted as received.
    pub bodies_refused: ByRefusal<u64>,
    /// Time from receiving an event until the queue acknowledged it.
    pub queued_after: HistogramCounts,
}

impl IngestCounters {
    /// Returns a snapshot.
    #[must_use]
    pub fn counts(&self) -> IngestCounts {
        // Reads the outcomes before `received`: an event is received before it
        // has an outcome, so that this order never sees more outcomes than
        // received events.
        let queued_after = self.queued_after.counts();
        let queued = queued_after.buckets.iter().sum();
        let spooled = self.spooled.load(Ordering::Acquire);
        let refused = self.refused.each_ref().map(|count| count.load(Ordering::Acquire));
        let received = self.received.load(Ordering::Acquire);
        IngestCounts {
            received,
            queued,
            spooled,
            refused,
            in_flight: received.saturating_sub(queued + spooled + refused.iter().sum::<u64>()),
            bodies_refused: self.bodies_refused.each_ref().map(|n| n.load(Ordering::Relaxed)),
            queued_after,
        }
    }

    /// Counts a body refused as a whole.
    pub fn refuse_body(&self, why: Refusal) {
        self.bodies_refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that is refused before its body is read.
    pub fn refuse_event(&self, why: Refusal) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.refused[why as usize].fetch_add(1, Ordering::Release);
    }

    /// Counts events received at `at`. Their outcomes are reported to the
    /// returned value.
    pub(super) fn receive(self: &Arc<Self>, events: usize, at: SystemTime) -> InFlight {
        let events = events as u64;
        self.received.fetch_add(events, Ordering::Relaxed);
        InFlight { counters: Arc::clone(self), since: at, left: events }
    }
}

/// Received events without an outcome. Those that never get one, because the
/// client disconnected, count as abandoned when this is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    counters: Arc<IngestCounters>,
    /// Wall-clock time, already read for `receivedAt`. Reading a monotonic clock
    /// as well would double the cost of counting.
    since: SystemTime,
    left: u64,
}

impl InFlight {
    /// Counts `events` of them as durable in `place`.
    pub(super) fn acknowledged(&mut self, place: Durable, events: u64) {
        if events == 0 {
            return;
        }
        self.left -= events;
        match place {
            Durable::Queue => {
                // Counts as zero if the clock was set back.
                let took = self.since.elapsed().unwrap_or_default();
                self.counters.queued_after.observe(took, events);
            }
            Durable::Spool => {
                self.counters.spooled.fetch_add(events, Ordering::Release);
            }
        }
    }

    /// Counts one of them as refused.
    pub(super) fn refused(&mut self, why: Refusal) {
        self.left -= 1;
        self.counters.refused[why as usize].fetch_add(1, Ordering::Release);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.left > 0 {
            self.counters.refused[Refusal::Abandoned as usize]
                .fetch_add(self.left, Ordering::Release);
        }
    }
}

/// Upper bounds of a histogram's buckets, in microseconds. One more bucket holds
/// all longer durations.
pub const BOUNDS_MICROS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// Snapshot of a [`Histogram`].
#[derive(Debug, Clone)]
pub struct HistogramCounts {
    /// Number of durations in each bucket, not cumulative.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// Sum of all durations, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Counts the duration `took`, `times` times.
    pub fn observe(&self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(times, Ordering::Release);
        self.sum_micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }

    /// Returns a snapshot.
    #[must_use]
    pub fn counts(&self) -> HistogramCounts {
        HistogramCounts {
            buckets: self.buckets.each_ref().map(|count| count.load(Ordering::Acquire)),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_exactly_one_outcome() {
        let counters = Arc::new(IngestCounters::default());
        let mut first = counters.receive(5, SystemTime::now());
        first.acknowledged(Durable::Queue, 1);
        first.acknowledged(Durable::Spool, 1);
        first.refused(Refusal::Invalid);
        let second = counters.receive(1, SystemTime::now());
        let counts = counters.counts();
        assert_eq!((counts.received, counts.in_flight), (6, 3));
        assert_eq!((counts.queued, counts.spooled), (1, 1));
        drop((first, second));
        let counts = counters.counts();
        assert_eq!(counts.refused[Refusal::Abandoned as usize], 3);
        assert_eq!(counts.in_flight, 0);
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
        }
    }

    #[test]
    fn bucket_bounds_are_inclusive() {
        let histogram = Histogram::default();
        for micros in [500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros), 1);
        }
        let buckets = histogram.counts().buckets;
        assert_eq!((buckets[0], buckets[1], buckets[14], buckets[15]), (1, 1, 1, 1));
    }
}
