//! Remembers which size of request the server refused, so that later batches are
//! not sent in that size only to be refused again. The size increases again while
//! the server accepts requests, because it may have refused all of them for
//! another reason.

use std::time::{Duration, Instant};

/// How long a limit is remembered. The server may have been configured anew.
const REMEMBERED: Duration = Duration::from_secs(60);

/// After this many accepted requests the limit is doubled. The number itself
/// doubles with each increase that the server refuses, up to the maximum.
const MIN_ACCEPTED: u32 = 8;
const MAX_ACCEPTED: u32 = 1024;

#[derive(Debug)]
pub(crate) struct SizeLimit {
    limit: Option<(usize, Instant)>,
    /// The smallest size that was refused, and until when it is remembered.
    refused: Option<(usize, Instant)>,
    /// The number of requests that were accepted since the limit changed.
    accepted: u32,
    /// After this many the limit is doubled.
    double_after: u32,
    /// The limit was doubled and no request was refused since.
    is_doubled: bool,
}

impl SizeLimit {
    pub(crate) const fn new() -> Self {
        Self {
            limit: None,
            refused: None,
            accepted: 0,
            double_after: MIN_ACCEPTED,
            is_doubled: false,
        }
    }

    /// Records that a request of `bytes` bytes was refused and is halved.
    pub(crate) fn halve(&mut self, bytes: usize, now: Instant) {
        let half = (bytes / 2).max(1);
        let known = self.bytes(now).unwrap_or(usize::MAX);
        self.limit = Some((half.min(known), now + REMEMBERED));
        self.accepted = 0;
        if std::mem::take(&mut self.is_doubled) {
            self.double_after = (self.double_after * 2).min(MAX_ACCEPTED);
        }
    }

    /// Records that the server refuses requests of `bytes` bytes because of their size.
    pub(crate) fn refuse(&mut self, bytes: usize, now: Instant) {
        let smallest = self.refused.filter(|(_, until)| now < *until).map(|(bytes, _)| bytes);
        self.refused = Some((smallest.unwrap_or(bytes).min(bytes), now + REMEMBERED));
    }

    /// Returns whether the server has refused a request that was not larger.
    pub(crate) fn is_refused(&self, bytes: usize, now: Instant) -> bool {
        self.refused.is_some_and(|(refused, until)| now < until && refused <= bytes)
    }

    /// Records that a request was accepted.
    pub(crate) fn accept(&mut self) {
        let Some((bytes, _)) = &mut self.limit else { return };
        self.accepted += 1;
        if self.accepted >= self.double_after {
            *bytes = bytes.saturating_mul(2);
            self.accepted = 0;
            self.is_doubled = true;
        }
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
        let mut limit = SizeLimit::new();
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

    #[test]
    fn accepted_requests_double_the_limit_and_refused_increases_become_rare() {
        let now = Instant::now();
        let mut limit = SizeLimit::new();
        limit.accept();
        assert_eq!(limit.bytes(now), None);
        limit.halve(1000, now);
        for accepted in [8, 16, 32] {
            (1..accepted).for_each(|_| limit.accept());
            assert_eq!(limit.bytes(now), Some(500));
            limit.accept();
            assert_eq!(limit.bytes(now), Some(1000));
            limit.halve(1000, now);
            // Others of that size were in flight as well.
            limit.halve(1000, now);
        }
        assert_eq!(limit.bytes(now), Some(500));
    }
}
