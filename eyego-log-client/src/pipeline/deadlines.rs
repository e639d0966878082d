//! Points in time at which something is to be done for a caller.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Points in time that are this close together are one.
const RESOLUTION: Duration = Duration::from_millis(100);

/// The number that is kept. Those furthest in the future are forgotten first.
const MAX: usize = 1024;

/// A bounded set of points in time.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<Instant>);

impl Deadlines {
    /// Adds a point in time, unless one shortly before it is there already.
    pub(crate) fn add(&mut self, at: Instant) {
        let begin = at.checked_sub(RESOLUTION).unwrap_or(at);
        if self.0.range(begin..=at).next().is_some() {
            return;
        }
        self.0.insert(at);
        if self.0.len() > MAX {
            self.0.pop_last();
        }
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        self.0.first().copied()
    }

    /// Removes those up to `now`. Returns whether there was one.
    pub(crate) fn remove_past(&mut self, now: Instant) -> bool {
        let mut has_removed = false;
        while self.0.first().is_some_and(|at| *at <= now) {
            self.0.pop_first();
            has_removed = true;
        }
        has_removed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Instant> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_are_kept() {
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        for second in (1..=5000).rev() {
            deadlines.add(now + Duration::from_secs(second));
            deadlines.add(now + Duration::from_secs(second) + RESOLUTION / 2);
        }
        assert_eq!(deadlines.iter().count(), MAX);
        assert_eq!(deadlines.first(), Some(now + Duration::from_secs(1)));
        assert!(!deadlines.remove_past(now));
        assert!(deadlines.remove_past(now + Duration::from_secs(2)));
        assert_eq!(deadlines.first(), Some(now + Duration::from_secs(3)));
    }
}
