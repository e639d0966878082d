//! A spool and the batches on their way through it.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::delivery::batch_source::effect::{Effect, Next, Remaining};
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Acks, Batch};
use crate::spool::{Extent, Spool, Unread};

/// How long the spool is not written after a failure.
pub(super) const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long the spool is not read while its records are unavailable.
const PAUSE_WHILE_UNAVAILABLE: Duration = Duration::from_millis(500);

/// The fraction of the buffer that spooled batches may occupy in memory.
const HELD_FRACTION: usize = 4;

#[derive(Debug)]
pub(super) struct Spooling {
    spool: Spool,
    /// The memory that `held` may occupy, in bytes.
    max_held_bytes: usize,
    max_batch_bytes: usize,
    max_buffer_bytes: usize,
    /// Spooled batches that are also in memory. They are older than all batches
    /// that are only on disk.
    held: VecDeque<Batch>,
    held_bytes: usize,
    /// What the spool does not record about the batches that are only on disk.
    marks: VecDeque<Mark>,
    /// A batch that could not be written to the spool.
    unwritten: Option<Batch>,
    /// When the spool is written again after a failure.
    failing_until: Option<Instant>,
    /// Whether no batch was written since a failure.
    is_failing: bool,
    /// When to read again after records were unavailable, until one was read.
    unavailable_until: Option<Instant>,
    /// Spooled events that were handed out and are not settled.
    handed_out: u64,
}

/// Describes consecutive records on disk that belong to the same epoch. A
/// record with acknowledgements has a mark to itself.
#[derive(Debug)]
struct Mark {
    epoch: u64,
    extent: Extent,
    acks: Acks,
}

impl Spooling {
    /// `found` is what an earlier process left in the spool, and belongs to `epoch`.
    pub(super) fn new(
        spool: Spool,
        found: Extent,
        epoch: u64,
        max_batch_bytes: usize,
        max_buffer_bytes: usize,
    ) -> Self {
        let recovered = Mark { epoch, extent: found, acks: Acks::default() };
        Self {
            spool,
            max_held_bytes: max_buffer_bytes / HELD_FRACTION,
            max_batch_bytes,
            max_buffer_bytes,
            held: VecDeque::new(),
            held_bytes: 0,
            marks: (found.records > 0).then_some(recovered).into_iter().collect(),
            unwritten: None,
            failing_until: None,
            is_failing: false,
            unavailable_until: None,
            handed_out: 0,
        }
    }

    pub(super) fn spool_bytes(&self) -> u64 {
        self.spool.bytes()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing || self.unavailable_until.is_some()
    }

    /// Makes a last attempt to write batches that are not on disk.
    pub(super) fn prepare_to_close(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let checked = self.spool.check_writer();
        effects.extend(checked.err().map(|error| self.fail(error, now)));
        if self.failing_until.is_some() {
            self.failing_until = Some(now);
        }
        self.maintain(now, effects);
    }

    pub(super) fn settle(&mut self, segment: u64, events: u64) {
        self.handed_out = self.handed_out.saturating_sub(events);
        self.spool.settle(segment, events);
    }

    pub(super) fn has_room(&self) -> bool {
        self.spool.has_room(self.max_batch_bytes)
    }

    pub(super) fn accepts_batches(&self) -> bool {
        self.unwritten.is_none() && self.failing_until.is_none() && self.has_room()
    }

    pub(super) fn maintain(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Err(error) = self.spool.sync_if_due(now) {
            effects.push(self.fail(error, now));
        }
        self.expire(now, effects);
        if self.failing_until.is_some_and(|until| until <= now) {
            self.failing_until = None;
            if let Err(error) = self.write_held(now) {
                effects.push(self.fail(error, now));
            }
        }
        if self.failing_until.is_none()
            && self.has_room()
            && let Some(batch) = self.unwritten.take()
        {
            effects.extend(self.write(batch, now));
        }
    }

    /// Creates the directory again if it was deleted, and writes the held batches
    /// whose files were deleted again.
    fn write_held(&mut self, now: Instant) -> io::Result<()> {
        self.spool.prepare_to_write()?;
        for batch in &mut self.held {
            let Some(deleted) = batch.segment.filter(|segment| !self.spool.has_file(*segment))
            else {
                continue;
            };
            if !self.spool.has_room(batch.bytes().len()) {
                break;
            }
            batch.segment = Some(self.spool.append(batch.bytes(), batch.len(), true, now)?);
            self.spool.settle(deleted, batch.len() as u64);
            self.is_failing = false;
        }
        Ok(())
    }

    /// Gives up events that have reached the maximum age of the spool.
    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let is_expired = |batch: &Batch| batch.expires_at.is_some_and(|at| at <= now);
        while self.held.front().is_some_and(is_expired)
            && let Some(batch) = self.held.pop_front()
        {
            self.held_bytes -= batch.cost();
            if let Some(segment) = batch.segment {
                self.spool.settle(segment, batch.len() as u64);
            }
            effects.push(Effect::Expired(batch));
        }
        while let Some(Unread::Lost { lost, reason, message }) = self.spool.take_expired() {
            self.lose(lost, reason, &message, effects);
        }
    }

    pub(super) fn close(mut self, batches: Vec<Batch>, now: Instant) -> Remaining {
        let mut remaining = Remaining::default();
        for (unread, is_on_disk) in self.spool.unread() {
            if is_on_disk {
                let acks = self.unmark(unread).into_iter().map(|mark| mark.acks);
                remaining.spooled_acks.extend(acks);
            } else {
                let message = "the spool file was deleted";
                self.lose(unread, LossReason::Damaged, message, &mut remaining.effects);
            }
        }
        let held = std::mem::take(&mut self.held);
        let mut can_write = true;
        for batch in batches.into_iter().chain(held).chain(self.unwritten.take()) {
            let is_on_disk = batch.segment.is_some_and(|segment| self.spool.has_file(segment));
            if !is_on_disk && can_write && self.spool.has_room(batch.bytes().len()) {
                can_write = self.spool.append(batch.bytes(), batch.len(), false, now).is_ok();
                if can_write {
                    remaining.spooled.push(batch);
                    continue;
                }
            }
            match is_on_disk {
                true => remaining.spooled.push(batch),
                false => remaining.unspooled.push(batch),
            }
        }
        remaining
    }

    pub(super) fn write(&mut self, mut batch: Batch, now: Instant) -> Option<Effect> {
        let fits = self.held_bytes + batch.cost() <= self.max_held_bytes;
        let is_held = self.marks.is_empty() && fits;
        let events = batch.len();
        match self.spool.append(batch.bytes(), events, is_held, now) {
            Err(error) => {
                self.unwritten = Some(batch);
                Some(self.fail(error, now))
            }
            Ok(segment) if is_held => {
                self.is_failing = false;
                batch.segment = Some(segment);
                batch.expires_at = self.spool.expires_at(now);
                self.held_bytes += batch.cost();
                self.held.push_back(batch);
                None
            }
            Ok(_) => {
                self.is_failing = false;
                self.mark(batch.epoch, events as u64, batch.take_acks());
                Some(Effect::Spilled(batch))
            }
        }
    }

    /// Pauses writing after a failure.
    fn fail(&mut self, error: io::Error, now: Instant) -> Effect {
        self.failing_until = Some(now + PAUSE_AFTER_FAILURE);
        self.is_failing = true;
        Effect::SpoolFailed(error)
    }

    pub(super) fn next(&mut self, pending_bytes: usize, now: Instant) -> (Next, Vec<Effect>) {
        let mut effects = Vec::new();
        let next = if let Some(batch) = self.next_spooled(pending_bytes, now, &mut effects) {
            self.handed_out += batch.len() as u64;
            Next::Batch(batch)
        } else if self.has_spooled() {
            Next::Nothing
        } else if let Some(batch) = self.unwritten.take() {
            Next::Batch(batch)
        } else if self.accepts_batches() {
            Next::Nothing
        } else {
            Next::Queue
        };
        (next, effects)
    }

    /// Returns whether a spooled batch is waiting to be sent.
    fn has_spooled(&self) -> bool {
        !self.held.is_empty() || self.spool.has_unread()
    }

    fn next_spooled(
        &mut self,
        pending_bytes: usize,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Option<Batch> {
        self.expire(now, effects);
        if let Some(batch) = self.held.pop_front() {
            self.held_bytes -= batch.cost();
            return Some(batch);
        }
        if self.unavailable_until.is_some_and(|until| now < until) {
            return None;
        }
        while self.can_read(pending_bytes) {
            let unread = self.spool.read()?;
            self.unavailable_until = None;
            match unread {
                Unread::Lines { segment, lines, expires_at } => {
                    let mut batch = Batch::from_lines(lines);
                    let read = Extent::record(batch.len() as u64);
                    for mark in self.unmark(read) {
                        batch.epoch = mark.epoch;
                        batch.set_acks(mark.acks);
                        // What is left of the mark was in its damaged records.
                        effects.extend(damaged(mark.epoch, mark.extent.without(read)));
                    }
                    batch.segment = Some(segment);
                    batch.expires_at = expires_at;
                    effects.push(Effect::Refilled { cost: batch.cost() });
                    return Some(batch);
                }
                Unread::Lost { lost, reason, message } => {
                    self.lose(lost, reason, &message, effects);
                }
                Unread::Unavailable { message } => {
                    self.unavailable_until = Some(now + PAUSE_WHILE_UNAVAILABLE);
                    effects.push(Effect::SpoolUnavailable { message });
                    return None;
                }
            }
        }
        None
    }

    /// Counts the next records on disk as lost.
    fn lose(&mut self, lost: Extent, reason: LossReason, message: &str, effects: &mut Vec<Effect>) {
        let marks = self.unmark(lost).into_iter();
        effects.extend(marks.map(|Mark { epoch, extent, acks }| Effect::Unreadable {
            epoch,
            events: extent.events,
            acks,
            reason,
            message: message.to_owned(),
        }));
    }

    /// Returns whether there is memory for a batch from disk. One batch is
    /// always allowed; otherwise a full buffer could never drain.
    fn can_read(&self, pending_bytes: usize) -> bool {
        self.handed_out == 0 || pending_bytes + self.max_batch_bytes <= self.max_buffer_bytes
    }

    fn mark(&mut self, epoch: u64, events: u64, acks: Acks) {
        if let Some(last) = self.marks.back_mut()
            && last.epoch == epoch
            && last.acks.is_empty()
            && acks.is_empty()
        {
            last.extent.add(Extent::record(events));
            return;
        }
        self.marks.push_back(Mark { epoch, extent: Extent::record(events), acks });
    }

    /// Removes the marks of the next records.
    fn unmark(&mut self, read: Extent) -> Vec<Mark> {
        let mut left = read;
        let mut marks = Vec::new();
        while left.records > 0
            && let Some(first) = self.marks.front_mut()
        {
            if first.extent.records <= left.records {
                left.remove(first.extent);
                marks.extend(self.marks.pop_front());
            } else {
                let before = first.extent;
                first.extent.remove(left);
                let extent = before.without(first.extent);
                marks.push(Mark { epoch: first.epoch, extent, acks: Acks::default() });
                break;
            }
        }
        marks
    }

    pub(super) fn wake_at(
        &self,
        due_at: Option<Instant>,
        pending_bytes: usize,
        now: Instant,
        can_send_at: impl Fn(Instant) -> Option<Instant>,
    ) -> Option<Instant> {
        let accepts_batches = self.accepts_batches();
        let write_at = if accepts_batches { due_at } else { self.failing_until };
        let send_at = if !self.held.is_empty() {
            Some(now)
        } else if self.has_spooled() {
            let can_read = self.can_read(pending_bytes);
            can_read.then(|| self.unavailable_until.map_or(now, |until| until.max(now)))
        } else if self.unwritten.is_some() {
            Some(now)
        } else {
            due_at.filter(|_| !accepts_batches)
        };
        let held_expiry = self.held.front().and_then(|batch| batch.expires_at);
        let expiry = [held_expiry, self.spool.next_expiry(now)];
        let times = [write_at, send_at.and_then(can_send_at), self.spool.sync_at()];
        times.into_iter().chain(expiry).flatten().min()
    }
}

/// Counts events that a file should have contained as lost.
fn damaged(epoch: u64, Extent { events, .. }: Extent) -> Option<Effect> {
    (events > 0).then(|| Effect::Unreadable {
        epoch,
        events,
        acks: Acks::default(),
        reason: LossReason::Damaged,
        message: "a spool file contains fewer events than were written".to_owned(),
    })
}
