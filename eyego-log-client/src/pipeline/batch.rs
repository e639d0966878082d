//! A batch: lines that travel together, from the buffer to the last answer.
//!
//! It is filled in place and sent as it is; it is copied only where an answer
//! divides it.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::loss::{Lines, LossReason};

/// Beside its line an event occupies about this much, in bytes.
const OVERHEAD: usize = 16;

/// How it ended with an event that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Delivered,
    /// Why, and the same for people.
    Lost(LossReason, String),
    /// It is in the spool, for the next process.
    Kept,
}

/// Tells somebody who waits for an event.
pub(crate) type Ack = oneshot::Sender<End>;

#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Who waits for which line; ascending.
    acks: Vec<(usize, Ack)>,
    /// Between which flushes its events came; see `ledger`.
    pub(crate) epoch: u64,
    /// When its first event came.
    pub(crate) opened_at: Option<Instant>,
    /// How often it was sent and failed.
    pub(crate) attempts: u32,
    /// Since when the delivery timeout counts.
    pub(crate) timed_from: Option<Instant>,
    /// The file of the spool that has its events.
    pub(crate) segment: Option<u64>,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            acks: Vec::new(),
            epoch: 0,
            opened_at: None,
            attempts: 0,
            timed_from: None,
            segment: None,
        }
    }

    /// The batch whose lines these are.
    pub(crate) fn from_lines(bytes: Vec<u8>) -> Self {
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends = breaks.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)).collect();
        Self { bytes, ends, ..Self::new() }
    }

    /// What an event with a line of this length occupies.
    pub(crate) const fn cost_of(line: usize) -> usize {
        line + OVERHEAD
    }

    pub(crate) fn push(&mut self, line: &[u8], ack: Option<Ack>) {
        self.bytes.extend_from_slice(line);
        if let Some(ack) = ack {
            self.acks.push((self.ends.len(), ack));
        }
        // A batch has at most a few MiB: the builder sees to it.
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD * self.ends.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines { bytes: &self.bytes, ends: &self.ends }
    }

    /// Makes room for as much as `other` holds, so that it need not grow.
    pub(crate) fn reserve_like(&mut self, other: &Self) {
        // The next one may be a little longer.
        self.bytes.reserve(other.bytes.len() + other.bytes.len() / 8);
        self.ends.reserve(other.ends.len());
    }

    /// Gives back the memory that a full batch did not need.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > self.bytes.len() + self.bytes.len() / 4 {
            self.bytes.shrink_to_fit();
        }
    }

    /// Ready to be filled again, with its memory.
    pub(crate) fn clear(&mut self) {
        let Self { bytes, ends, acks, .. } = self;
        bytes.clear();
        ends.clear();
        acks.clear();
        self.opened_at = None;
        self.attempts = 0;
        self.timed_from = None;
        self.segment = None;
    }

    /// Tells those who wait for its events.
    pub(crate) fn acknowledge(&mut self, end: &End) {
        for (_, ack) in self.acks.drain(..) {
            // Who no longer waits does not need to know.
            let _ = ack.send(end.clone());
        }
    }

    /// Those who wait for its events, each with the line that it waits for.
    pub(crate) fn take_acks(&mut self) -> Vec<(usize, Ack)> {
        std::mem::take(&mut self.acks)
    }

    /// Gives back what [`take_acks`](Self::take_acks) took.
    pub(crate) fn put_acks(&mut self, acks: Vec<(usize, Ack)>) {
        self.acks = acks;
    }

    /// Divides it into as many batches as `part_of` names, in order; a batch
    /// that gets no line is empty.
    pub(crate) fn divide(mut self, parts: usize, part_of: impl Fn(usize) -> usize) -> Vec<Self> {
        let mut divided: Vec<Self> = (0..parts)
            .map(|_| Self {
                epoch: self.epoch,
                opened_at: self.opened_at,
                attempts: self.attempts,
                timed_from: self.timed_from,
                segment: self.segment,
                ..Self::new()
            })
            .collect();
        let mut acks = std::mem::take(&mut self.acks).into_iter().peekable();
        for (index, line) in self.lines().iter().enumerate() {
            let ack = acks.next_if(|(waiting_for, _)| *waiting_for == index).map(|(_, ack)| ack);
            if let Some(part) = divided.get_mut(part_of(index)) {
                part.push(line, ack);
            }
        }
        divided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dividing_keeps_lines_and_those_who_wait_together() {
        let mut batch = Batch::new();
        let mut waiting = Vec::new();
        for n in 0..6 {
            let (ack, wait) = oneshot::channel();
            batch.push(format!("{n}\n").as_bytes(), Some(ack));
            waiting.push(wait);
        }
        let mut parts = batch.divide(2, |index| index % 2);
        assert_eq!(parts[0].bytes(), b"0\n2\n4\n");
        assert_eq!(parts[1].bytes(), b"1\n3\n5\n");
        parts[1].acknowledge(&End::Delivered);
        for (n, mut wait) in waiting.into_iter().enumerate() {
            assert_eq!(wait.try_recv().is_ok(), n % 2 == 1);
        }
    }
}
