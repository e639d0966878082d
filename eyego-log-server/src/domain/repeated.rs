//! Limits how often a repeated warning is logged. Pure: time comes in as an
//! argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Default minimum time between two lines about the same thing.
const INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of things that are told apart. Further ones share one limit.
const MAX_KEYS: usize = 64;

const OTHERS: &str = "other";

/// Counts occurrences by key, and says when a line about them is due: at the
/// first one, and then at most once in an interval, by default 10 s.
#[derive(Debug)]
pub struct Repeated {
    interval: Duration,
    by_key: BTreeMap<String, Occurrences>,
}

#[derive(Debug, Default)]
struct Occurrences {
    reported_at: Option<Instant>,
    /// Occurrences since then.
    pending: u64,
}

impl Default for Repeated {
    fn default() -> Self {
        Self::every(INTERVAL)
    }
}

impl Occurrences {
    fn take_due(&mut self, interval: Duration, now: Instant) -> Option<u64> {
        let is_early = self.reported_at.is_some_and(|at| now.duration_since(at) < interval);
        if is_early || self.pending == 0 {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.pending))
    }
}

impl Repeated {
    /// Creates a counter with this minimum time between two lines.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, by_key: BTreeMap::new() }
    }

    /// Counts `count` occurrences of `key`. Returns the number that a line now
    /// stands for, or `None` if no line is due.
    pub fn note(&mut self, key: &str, count: u64, now: Instant) -> Option<u64> {
        let is_new = !self.by_key.contains_key(key);
        let key = if is_new && self.by_key.len() >= MAX_KEYS { OTHERS } else { key };
        let occurrences = self.by_key.entry(key.to_owned()).or_default();
        occurrences.pending += count;
        occurrences.take_due(self.interval, now)
    }

    /// Returns the keys with occurrences that no line has reported and for which
    /// a line is due, with their numbers.
    pub fn take_due(&mut self, now: Instant) -> Vec<(String, u64)> {
        let due = self.by_key.iter_mut();
        due.filter_map(|(key, of)| Some((key.clone(), of.take_due(self.interval, now)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_at_once_and_then_with_a_count() {
        let mut repeated = Repeated::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(repeated.note("a", 1, at(0)), Some(1));
        assert_eq!(repeated.note("a", 500, at(1)), None);
        assert_eq!(repeated.note("b", 1, at(1)), Some(1), "each key has its own limit");
        assert_eq!(repeated.note("a", 1, at(10)), Some(501));
        assert_eq!(repeated.note("a", 3, at(11)), None);
        assert_eq!(repeated.take_due(at(12)), []);
        assert_eq!(repeated.take_due(at(20)), [("a".to_owned(), 3)], "the last ones too");
        assert_eq!(repeated.take_due(at(60)), []);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut repeated = Repeated::default();
        let now = Instant::now();
        let lines = (0..1000).filter_map(|n| repeated.note(&n.to_string(), 1, now)).count();
        assert_eq!(lines, MAX_KEYS + 1);
    }
}
