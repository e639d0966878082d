//! A batch of encoded events, from the buffer until all of them are settled.
//!
//! A batch is filled in place and sent without copying. It is copied only when
//! a response requires splitting it.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::model::line::Lines;
use crate::model::loss_reason::LossReason;

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

/// What the future returned by `send` learns about its event.
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
    bytes: Vec<u8>,
    ends: Vec<u32>,
    acks: Acks,
    /// The epoch of all its events; see [`Accounting`](super::accounting::Accounting).
    pub(crate) epoch: u64,
    /// When the first event was added.
    pub(crate) opened_at: Option<Instant>,
    /// The number of failed attempts to send the batch.
    pub(crate) attempts: u32,
    /// When the delivery timeout began.
    pub(crate) timeout_started_at: Option<Instant>,
    /// The number of the spool file that contains the events.
    pub(crate) segment: Option<u64>,
    /// When the events reach the maximum age of the spool.
    pub(crate) expires_at: Option<Instant>,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            acks: Acks(Vec::new()),
            epoch: 0,
            opened_at: None,
            attempts: 0,
            timeout_started_at: None,
            segment: None,
            expires_at: None,
        }
    }

    /// Creates a batch from complete lines.
    pub(crate) fn from_lines(bytes: Vec<u8>) -> Self {
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends = breaks.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)).collect();
        Self { bytes, ends, ..Self::new() }
    }

    /// Returns the memory that an event with a line of this length occupies.
    pub(crate) const fn cost_of(line: usize) -> usize {
        line + OVERHEAD
    }

    pub(crate) fn push(&mut self, line: &[u8], ack: Option<Ack>) {
        self.bytes.extend_from_slice(line);
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

    /// Reserves slightly more memory than `other` uses, so that a similar batch
    /// does not reallocate.
    pub(crate) fn reserve_like(&mut self, other: &Self) {
        self.bytes.reserve(other.bytes.len() + other.bytes.len() / 8);
        self.ends.reserve(other.ends.len());
    }

    /// Releases the unused memory of a full batch.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > self.bytes.len() + self.bytes.len() / 4 {
            self.bytes.shrink_to_fit();
        }
    }

    /// Empties the batch but keeps its memory.
    pub(crate) fn clear(&mut self) {
        let Self { bytes, ends, acks, .. } = self;
        bytes.clear();
        ends.clear();
        acks.0.clear();
        self.opened_at = None;
        self.attempts = 0;
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
                timeout_started_at: self.timeout_started_at,
                segment: self.segment,
                expires_at: self.expires_at,
                ..Self::new()
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
    fn splitting_keeps_each_acknowledgement_with_its_line() {
        let mut batch = Batch::new();
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
}
