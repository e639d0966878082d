//! What is counted on the way in, and how durations are: plain atomics, since an
//! event costs microseconds. How they are shown is the interface's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::domain::queue::Durable;

/// Why an event, or a body as a whole, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has faults.
    Invalid,
    /// It is too large.
    TooLarge,
    /// Its media type or its encoding is not read here.
    Unsupported,
    /// It came too slowly.
    TooSlow,
    /// The queue, or the memory before it, is full.
    QueueFull,
    /// The queue did not acknowledge it.
    Unavailable,
    /// The caller was gone before the queue answered: it may be queued.
    Abandoned,
    /// Our fault.
    Internal,
}

impl Refusal {
    /// Every reason, in the order of their places in a counter.
    pub const ALL: [Self; 8] = [
        Self::Invalid,
        Self::TooLarge,
        Self::Unsupported,
        Self::TooSlow,
        Self::QueueFull,
        Self::Unavailable,
        Self::Abandoned,
        Self::Internal,
    ];

    /// The reason as a label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::TooSlow => "too_slow",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::Abandoned => "abandoned",
            Self::Internal => "internal",
        }
    }
}

/// A number for each reason.
pub type ByRefusal<T> = [T; Refusal::ALL.len()];

/// What became of the events that callers sent.
#[derive(Debug, Default)]
pub struct IngestCounters {
    received: AtomicU64,
    refused: ByRefusal<AtomicU64>,
    bodies_refused: ByRefusal<AtomicU64>,
    spooled: AtomicU64,
    /// Counts what is queued, too.
    queued_after: Histogram,
}

/// The same at one moment: `received` is `queued`, `spooled`, `refused` and
/// `in_flight` together.
#[derive(Debug, Clone)]
pub struct IngestCounts {
    /// Events that came.
    pub received: u64,
    /// Events that the queue holds.
    pub queued: u64,
    /// Events that the spool took.
    pub spooled: u64,
    /// Events that were refused, in the order of [`Refusal::ALL`].
    pub refused: ByRefusal<u64>,
    /// Events whose fate is open.
    pub in_flight: u64,
    /// Bodies that were refused before there was an event to be seen.
    pub bodies_refused: ByRefusal<u64>,
    /// How long it took from the receipt of an event until it was queued.
    pub queued_after: HistogramCounts,
}

impl IngestCounters {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> IngestCounts {
        // The fates first: each event was received before its fate was known,
        // and this order cannot see a fate without the receipt.
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

    /// Counts a body that was refused as a whole.
    pub fn refuse_body(&self, why: Refusal) {
        self.bodies_refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts events that came at this time; their fate is to be told to what
    /// this answers.
    pub(super) fn receive(self: &Arc<Self>, events: usize, at: SystemTime) -> InFlight {
        let events = events as u64;
        self.received.fetch_add(events, Ordering::Relaxed);
        InFlight { counters: Arc::clone(self), since: at, left: events }
    }
}

/// Events whose fate is open. Those of which it is never told, because the
/// caller went away, count as abandoned.
#[derive(Debug)]
pub(super) struct InFlight {
    counters: Arc<IngestCounters>,
    /// By the clock that `receivedAt` is read from: a second reading of a
    /// monotonic one would cost as much as all the counting.
    since: SystemTime,
    left: u64,
}

impl InFlight {
    /// So many of them are durable, there.
    pub(super) fn acknowledged(&mut self, place: Durable, events: u64) {
        if events == 0 {
            return;
        }
        self.left -= events;
        match place {
            Durable::Queue => {
                // A clock that was set back says nothing: as good as at once.
                let took = self.since.elapsed().unwrap_or_default();
                self.counters.queued_after.observe(took, events);
            }
            Durable::Spool => {
                self.counters.spooled.fetch_add(events, Ordering::Release);
            }
        }
    }

    /// One of them is refused.
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

/// The upper bounds of a histogram's buckets, in microseconds; one more bucket
/// takes what is above.
pub const BOUNDS_MICROS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// How many durations were how long.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone)]
pub struct HistogramCounts {
    /// The durations in each bucket alone.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// All durations together, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Notes that something took so long, this many times.
    pub fn observe(&self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(times, Ordering::Release);
        self.sum_micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }

    /// The histogram now.
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
    fn each_event_has_one_fate() {
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
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for micros in [500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros), 1);
        }
        let buckets = histogram.counts().buckets;
        assert_eq!((buckets[0], buckets[1], buckets[14], buckets[15]), (1, 1, 1, 1));
    }
}
