//! A batch of encoded events, from the buffer until all of them are settled.
//!
//! A batch is filled in place. Its lines are copied only when a response requires
//! splitting it.

use std::ops::Range;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::model::line::Lines;
use crate::model::loss_reason::LossReason;
use crate::pipeline::memory::{Memory, PAGE_BYTES};

/// The approximate memory that an event occupies in addition to its line, in
/// bytes.
const OVERHEAD: usize = 16;

/// How the events of a batch were settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Lost { reason: LossReason, message: String },
}

impl Outcome {
    pub(crate) fn lost(reason: LossReason, message: impl Into<String>) -> Self {
        Self::Lost { reason, message: message.into() }
    }
}

/// A batch whose events are all settled in the same way.
#[derive(Debug)]
pub(crate) struct SettledBatch {
    pub(crate) batch: Batch,
    pub(crate) outcome: Outcome,
}

/// The outcome of an event, for the future that `send` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    Delivered,
    Lost {
        reason: LossReason,
        message: String,
    },
    /// The client was shut down, and the event remains in the spool.
    Spooled,
}

impl From<&Outcome> for Acknowledgement {
    fn from(outcome: &Outcome) -> Self {
        match outcome.clone() {
            Outcome::Delivered => Self::Delivered,
            Outcome::Lost { reason, message } => Self::Lost { reason, message },
        }
    }
}

/// Completes the future returned by `send`.
pub(crate) type Ack = oneshot::Sender<Acknowledgement>;

/// The acknowledgements that a batch owes, each with the index of its line, in
/// ascending order.
#[derive(Debug, Default)]
pub(crate) struct Acks(Vec<(usize, Ack)>);

impl Acks {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends the same acknowledgement to all of them.
    pub(crate) fn send(self, acknowledgement: &Acknowledgement) {
        for (_, ack) in self.0 {
            // The caller may have dropped the future.
            let _ = ack.send(acknowledgement.clone());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Memory,
    ends: Vec<u32>,
    acks: Acks,
    /// The epoch of all its events; see [`Accounting`](super::accounting::Accounting).
    pub(crate) epoch: u64,
    /// When the first event was added.
    pub(crate) opened_at: Option<Instant>,
    /// The number of failed attempts to send the batch.
    pub(crate) attempts: u32,
    /// How many of these failed although the server accepted other batches, less those
    /// that failed together with others.
    pub(crate) own_failures: u32,
    /// How many requests the server had accepted when the last attempt failed or,
    /// before that, when the first one began.
    pub(crate) accepted_before: u64,
    /// When the delivery timeout began.
    pub(crate) timeout_started_at: Option<Instant>,
    /// The number of the spool file that contains the events.
    pub(crate) segment: Option<u64>,
    /// When the events reach the maximum age of the spool.
    pub(crate) expires_at: Option<Instant>,
}

impl Batch {
    /// Creates an empty batch. If its lines take more than a few pages, they are
    /// kept in a segment of `segment_bytes` bytes.
    pub(crate) const fn new(segment_bytes: usize) -> Self {
        Self {
            bytes: Memory::new(segment_bytes),
            ends: Vec::new(),
            acks: Acks(Vec::new()),
            epoch: 0,
            opened_at: None,
            attempts: 0,
            own_failures: 0,
            accepted_before: 0,
            timeout_started_at: None,
            segment: None,
            expires_at: None,
        }
    }

    /// Creates a batch from complete lines.
    pub(crate) fn from_lines(bytes: Vec<u8>) -> Self {
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends = breaks.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)).collect();
        Self { bytes: Memory::from_vec(bytes), ends, ..Self::new(0) }
    }

    /// Returns the memory that an event with a line of this length occupies.
    pub(crate) const fn cost_of(line: usize) -> usize {
        line + OVERHEAD
    }

    pub(crate) fn push(&mut self, line: &[u8], ack: Option<Ack>) {
        self.bytes.extend(line);
        if let Some(ack) = ack {
            self.acks.0.push((self.ends.len(), ack));
        }
        // The builder limits a batch to 16 MiB, so this always fits.
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns whether no attempt to send the batch has failed.
    pub(crate) fn is_new(&self) -> bool {
        self.attempts == 0 && self.own_failures == 0
    }

    /// Returns whether an attempt failed although the server accepted other batches.
    pub(crate) fn has_own_failures(&self) -> bool {
        self.own_failures > 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    pub(crate) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD * self.ends.len()
    }

    /// Returns whether a later batch can use the memory.
    pub(crate) fn is_reusable(&self) -> bool {
        self.bytes.segment_bytes() > 0
    }

    /// Returns whether the lines are so few that they need no segment of their own.
    pub(crate) fn is_small(&self) -> bool {
        self.bytes.is_small()
    }

    /// Returns whether the memory is a segment, even if there are few lines.
    pub(crate) fn has_segment(&self) -> bool {
        self.bytes.has_segment()
    }

    /// Returns the memory that the events occupy, including what is kept for
    /// later events.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.bytes.resident_bytes() + self.ends.capacity() * size_of::<u32>()
    }

    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines { bytes: self.bytes.as_slice(), ends: &self.ends }
    }

    /// Reserves room for `events` lines of `bytes` bytes together.
    pub(crate) fn reserve(&mut self, events: usize, bytes: usize) {
        self.ends.reserve(events);
        self.bytes.reserve(bytes);
    }

    /// Moves all lines of `other` to the end of this batch. `other` is empty then.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let (events, start) = (self.ends.len(), self.bytes.len());
        self.bytes.extend(other.bytes.as_slice());
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        self.ends.extend(other.ends.iter().map(|end| start.saturating_add(*end)));
        self.acks.0.extend(other.take_acks().0.into_iter().map(|(at, ack)| (events + at, ack)));
        other.clear();
    }

    /// Copies some lines to `target`, and moves their acknowledgements there.
    pub(crate) fn copy_lines(&mut self, range: Range<usize>, target: &mut Self) {
        let start_of = |at: usize| at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let (start, end) = (start_of(range.start), start_of(range.end));
        target.bytes.extend(&self.bytes.as_slice()[start as usize..end as usize]);
        target.ends.extend(self.ends[range.clone()].iter().map(|end| end - start));
        let is_inside = |(at, _): &mut (usize, Ack)| range.contains(at);
        let acks = self.acks.0.extract_if(.., is_inside);
        target.acks.0.extend(acks.map(|(at, ack)| (at - range.start, ack)));
    }

    /// If the memory is larger than [`cost`](Self::cost) tells, moves the content
    /// to memory that fits, and returns a batch with the larger memory.
    pub(crate) fn compact(&mut self) -> Option<Self> {
        if self.resident_bytes() <= self.cost() + PAGE_BYTES {
            return None;
        }
        self.ends.shrink_to_fit();
        let compact = self.bytes.compact();
        let mut bytes = std::mem::replace(&mut self.bytes, compact);
        bytes.clear();
        Some(Self { bytes, ..Self::new(0) })
    }

    /// Moves the events of `other` into this batch, if all of them then still
    /// fit into one request and can be settled together. Otherwise returns
    /// `other` unchanged.
    pub(crate) fn merge(&mut self, mut other: Self, max_events: usize) -> Option<Self> {
        let fits = self.len() + other.len() <= max_events
            && self.bytes.len() + other.bytes.len() <= self.bytes.segment_bytes();
        let is_alike = self.epoch == other.epoch
            && self.segment == other.segment
            && self.timeout_started_at.is_some() == other.timeout_started_at.is_some();
        if !(fits && is_alike) {
            return Some(other);
        }
        self.opened_at = self.opened_at.min(other.opened_at).or(other.opened_at);
        self.timeout_started_at = self.timeout_started_at.min(other.timeout_started_at);
        self.expires_at = self.expires_at.min(other.expires_at).or(other.expires_at);
        self.append(&mut other);
        None
    }

    /// Empties the batch but keeps its memory.
    pub(crate) fn clear(&mut self) {
        let Self { bytes, ends, acks, .. } = self;
        bytes.clear();
        ends.clear();
        acks.0.clear();
        self.opened_at = None;
        self.attempts = 0;
        self.own_failures = 0;
        self.accepted_before = 0;
        self.timeout_started_at = None;
        self.segment = None;
        self.expires_at = None;
    }

    pub(crate) fn acknowledge(&mut self, acknowledgement: &Acknowledgement) {
        self.take_acks().send(acknowledgement);
    }

    pub(crate) fn take_acks(&mut self) -> Acks {
        std::mem::take(&mut self.acks)
    }

    pub(crate) fn set_acks(&mut self, acks: Acks) {
        self.acks = acks;
    }

    /// Splits the batch into `parts` batches: the line at `index` goes into the
    /// batch `part_of(index)`. Order is kept. A batch that gets no line is
    /// empty.
    pub(crate) fn split(mut self, parts: usize, part_of: impl Fn(usize) -> usize) -> Vec<Self> {
        let mut batches: Vec<Self> = (0..parts)
            .map(|_| Self {
                epoch: self.epoch,
                opened_at: self.opened_at,
                attempts: self.attempts,
                own_failures: self.own_failures,
                accepted_before: self.accepted_before,
                timeout_started_at: self.timeout_started_at,
                segment: self.segment,
                expires_at: self.expires_at,
                ..Self::new(self.bytes.segment_bytes())
            })
            .collect();
        let mut acks = self.take_acks().0.into_iter().peekable();
        for (index, line) in self.lines().iter().enumerate() {
            let ack = acks.next_if(|(line_index, _)| *line_index == index).map(|(_, ack)| ack);
            if let Some(batch) = batches.get_mut(part_of(index)) {
                batch.push(line, ack);
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compacted_batch_occupies_what_it_counts() {
        let fill = |batch: &mut Batch, length| {
            let line = vec![b'x'; length];
            (0..500).for_each(|_| batch.push(&line, None));
        };
        let mut batch = Batch::new(512 << 10);
        fill(&mut batch, 250);
        assert!(batch.compact().is_none(), "nothing to gain");
        batch.clear();
        fill(&mut batch, 210);
        let unused = batch.compact().expect("a sixth of the memory is unused");
        assert!(unused.is_empty() && unused.resident_bytes() >= 125_000);
        assert_eq!((batch.len(), batch.bytes().len()), (500, 105_000));
        assert!(batch.resident_bytes() <= batch.cost() + PAGE_BYTES);
    }

    #[test]
    fn splitting_keeps_each_acknowledgement_with_its_line() {
        let mut batch = Batch::new(0);
        let mut receivers = Vec::new();
        for n in 0..6 {
            let (ack, receiver) = oneshot::channel();
            batch.push(format!("{n}\n").as_bytes(), Some(ack));
            receivers.push(receiver);
        }
        let mut parts = batch.split(2, |index| index % 2);
        assert_eq!(parts[0].bytes(), b"0\n2\n4\n");
        assert_eq!(parts[1].bytes(), b"1\n3\n5\n");
        parts[1].acknowledge(&Acknowledgement::Delivered);
        for (n, mut receiver) in receivers.into_iter().enumerate() {
            assert_eq!(receiver.try_recv().is_ok(), n % 2 == 1);
        }
    }

    #[test]
    fn merging_keeps_each_acknowledgement_with_its_line() {
        let batch = |line: &[u8], ack| {
            let mut batch = Batch::new(1000);
            batch.push(b"x\n", None);
            batch.push(line, Some(ack));
            batch
        };
        let (first_ack, mut first) = oneshot::channel();
        let (second_ack, mut second) = oneshot::channel();
        let mut merged = batch(b"1\n", first_ack);
        assert!(merged.merge(batch(b"2\n", second_ack), 4).is_none());
        assert_eq!(merged.bytes(), b"x\n1\nx\n2\n");
        let (ack, _receiver) = oneshot::channel();
        assert!(merged.merge(batch(b"3\n", ack), 4).is_some(), "more than four events");
        let mut parts = merged.split(2, |index| usize::from(index == 3));
        parts[1].acknowledge(&Acknowledgement::Delivered);
        assert!(second.try_recv().is_ok() && first.try_recv().is_err());
    }
}
