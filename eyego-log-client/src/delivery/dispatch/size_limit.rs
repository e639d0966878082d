//! Remembers which size of request the server refused, so that later batches are
//! not sent in that size only to be refused again.

use std::time::{Duration, Instant};

/// How long a limit is remembered. The server may have been configured anew.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct SizeLimit {
    limit: Option<(usize, Instant)>,
}

impl SizeLimit {
    /// Records that a request of `bytes` bytes was refused and is halved.
    pub(crate) fn halve(&mut self, bytes: usize, now: Instant) {
        let half = (bytes / 2).max(1);
        let known = self.bytes(now).unwrap_or(usize::MAX);
        self.limit = Some((half.min(known), now + REMEMBERED));
    }

    /// Forgets the limit, because a single event was the reason for it.
    pub(crate) fn clear(&mut self) {
        self.limit = None;
    }

    /// Returns the maximum size of a request in bytes, or `None` if there is no
    /// limit.
    pub(crate) fn bytes(&self, now: Instant) -> Option<usize> {
        self.limit.filter(|(_, until)| now < *until).map(|(bytes, _)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_half_is_remembered_for_a_while() {
        let now = Instant::now();
        let mut limit = SizeLimit::default();
        assert_eq!(limit.bytes(now), None);
        limit.halve(1000, now);
        limit.halve(500, now);
        limit.halve(800, now);
        assert_eq!(limit.bytes(now), Some(250));
        assert_eq!(limit.bytes(now + REMEMBERED), None);
        limit.halve(1000, now + REMEMBERED);
        limit.clear();
        assert_eq!(limit.bytes(now), None);
    }
}
