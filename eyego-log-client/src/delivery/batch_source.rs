//! What is sent next: batches as they come from the buffer, or, where there is
//! a spool, as they come out of it.
//!
//! With a spool every batch is written there before it is sent, as soon as it
//! is due, whether or not the server takes anything. As long as the server
//! keeps up it is then sent from memory; once that holds enough of them, later
//! ones are on disk alone and are read again when it is their turn. So they
//! leave in the order in which they came, those of an earlier process first.
//!
//! A spool that is full or cannot be written stops nothing: what does not get
//! into it waits in memory, and is sent from there when all before it is.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::batch::{Ack, Batch};
use crate::dispatch::Settled;
use crate::loss::LossReason;
use crate::shared::Shared;
use crate::spool::{Extent, Recovered, Spool, Unread};

/// How long a spool that could not be written is left alone.
const FAILING_PAUSE: Duration = Duration::from_secs(5);

/// The share of the buffer that batches may take which are in the spool too.
const HELD_SHARE: usize = 4;

#[derive(Debug)]
pub(crate) struct Feed {
    spooling: Option<Spooling>,
}

#[derive(Debug)]
struct Spooling {
    spool: Spool,
    /// Batches in the spool that are in memory too: older than any on disk
    /// alone.
    held: VecDeque<Batch>,
    held_bytes: usize,
    /// What the disk does not know of the batches that are there alone.
    marks: VecDeque<Mark>,
    /// The batch that the spool refused.
    refused: Option<Batch>,
    failing_until: Option<Instant>,
    /// Events of the spool that were handed out and are not settled.
    handed_out: u64,
}

/// Records on disk that follow one another and have an epoch in common; one
/// whose events are waited for stands alone.
#[derive(Debug)]
struct Mark {
    epoch: u64,
    extent: Extent,
    acks: Vec<(usize, Ack)>,
}

impl Feed {
    /// Books what an earlier process left.
    pub(crate) fn new(shared: &Shared, spool: Option<(Spool, Recovered)>) -> Self {
        let spooling = spool.map(|(spool, recovered)| {
            shared.recover(&recovered);
            shared.state().ledger.stats.spool_bytes = spool.bytes();
            let mark = Mark { epoch: 0, extent: recovered.found, acks: Vec::new() };
            Spooling {
                spool,
                held: VecDeque::new(),
                held_bytes: 0,
                marks: VecDeque::from([mark]),
                refused: None,
                failing_until: None,
                handed_out: 0,
            }
        });
        Self { spooling }
    }

    /// Moves what is due from the buffer into the spool, if there is one.
    pub(crate) fn fill(&mut self, shared: &Shared, now: Instant) {
        if let Some(spooling) = &mut self.spooling {
            spooling.fill(shared, now);
        }
    }

    /// The next batch to be sent, if one is due.
    pub(crate) fn next(&mut self, shared: &Shared, now: Instant) -> Option<Batch> {
        match &mut self.spooling {
            None => shared.next_batch(now),
            Some(spooling) => spooling.next(shared, now),
        }
    }

    /// When there is something to do, given when a batch in the buffer is due
    /// and when the dispatcher takes one that is due then.
    pub(crate) fn wake_at(
        &self,
        shared: &Shared,
        due: Option<Instant>,
        now: Instant,
        room_at: impl Fn(Instant) -> Option<Instant>,
    ) -> Option<Instant> {
        match &self.spooling {
            None => due.and_then(room_at),
            Some(spooling) => spooling.wake_at(shared, due, now, room_at),
        }
    }

    /// Books the end of a batch that was handed out.
    pub(crate) fn settle(&mut self, shared: &Shared, settled: Settled) {
        let (segment, events) = (settled.batch.segment, settled.batch.len() as u64);
        // First the hooks, then the file: who dies in between tells it twice.
        shared.settle(settled);
        if let (Some(segment), Some(spooling)) = (segment, &mut self.spooling) {
            spooling.handed_out = spooling.handed_out.saturating_sub(events);
            spooling.spool.settle(segment, events);
        }
    }

    /// The worker ends, with these batches in its hands: what is in the spool
    /// stays there, what is not is lost.
    pub(crate) fn end(
        &mut self,
        shared: &Shared,
        reason: LossReason,
        mut rest: Vec<Batch>,
        message: &str,
    ) {
        if let Some(mut spooling) = self.spooling.take() {
            spooling.fill(shared, Instant::now());
            rest.extend(spooling.refused.take());
            rest.extend(spooling.held.drain(..));
            spooling.marks.drain(..).for_each(|mark| Shared::keep_unread(mark.acks));
            // The directory is free before anybody is told of the end.
        }
        let (kept, lost): (Vec<_>, Vec<_>) = rest.into_iter().partition(|b| b.segment.is_some());
        kept.into_iter().for_each(|batch| shared.keep(batch));
        shared.end(reason, lost, message);
    }
}

impl Spooling {
    fn fill(&mut self, shared: &Shared, now: Instant) {
        if let Err(error) = self.spool.sync_if_due(now) {
            self.fail(shared, &error, now);
        }
        if self.failing_until.is_some_and(|until| until <= now) {
            self.failing_until = None;
        }
        while self.may_write(shared)
            && let Some(batch) = shared.next_batch(now)
        {
            self.write(shared, batch, now);
        }
        let is_full = !self.has_room(shared);
        let mut state = shared.state();
        state.ledger.stats.spool_bytes = self.spool.bytes();
        if is_full {
            state.problems.spool("it is full: events wait in memory");
        } else if self.failing_until.is_none() {
            state.problems.resolve_spool();
        }
    }

    fn has_room(&self, shared: &Shared) -> bool {
        self.spool.has_room(shared.config.batch.bytes)
    }

    fn may_write(&self, shared: &Shared) -> bool {
        self.refused.is_none() && self.failing_until.is_none() && self.has_room(shared)
    }

    fn write(&mut self, shared: &Shared, mut batch: Batch, now: Instant) {
        let most = shared.config.max_buffer_bytes / HELD_SHARE;
        let is_held = self.marks.is_empty() && self.held_bytes + batch.cost() <= most;
        let events = batch.len();
        match self.spool.append(batch.bytes(), events, is_held, now) {
            Err(error) => {
                self.fail(shared, &error, now);
                self.refused = Some(batch);
            }
            Ok(segment) if is_held => {
                batch.segment = Some(segment);
                self.held_bytes += batch.cost();
                self.held.push_back(batch);
            }
            Ok(_) => {
                self.mark(batch.epoch, events as u64, batch.take_acks());
                shared.unload(batch);
            }
        }
    }

    /// The spool could not be written: it is left alone for a while.
    fn fail(&mut self, shared: &Shared, error: &io::Error, now: Instant) {
        self.failing_until = Some(now + FAILING_PAUSE);
        let message = format!("it cannot be written ({error}): events wait in memory");
        let mut state = shared.state();
        state.problems.spool(&message);
        state.ledger.stats.last_problem = Some(format!("the spool fails: {message}"));
    }

    fn next(&mut self, shared: &Shared, now: Instant) -> Option<Batch> {
        if let Some(batch) = self.next_spooled(shared) {
            self.handed_out += batch.len() as u64;
            return Some(batch);
        }
        if self.has_waiting() {
            return None;
        }
        let refused = self.refused.take();
        let batch = match refused {
            None if !self.may_write(shared) => shared.next_batch(now),
            refused => refused,
        }?;
        shared.state().ledger.stats.unspooled += batch.len() as u64;
        Some(batch)
    }

    /// Whether something in the spool has yet to be sent.
    fn has_waiting(&self) -> bool {
        !self.held.is_empty() || self.spool.has_unread()
    }

    fn next_spooled(&mut self, shared: &Shared) -> Option<Batch> {
        if let Some(batch) = self.held.pop_front() {
            self.held_bytes -= batch.cost();
            return Some(batch);
        }
        while self.may_read(shared) {
            match self.spool.read()? {
                Unread::Lines { segment, lines } => {
                    let mut batch = Batch::from_lines(lines);
                    let read = Extent::record(batch.len() as u64);
                    for mark in self.unmark(read) {
                        batch.epoch = mark.epoch;
                        batch.put_acks(mark.acks);
                    }
                    batch.segment = Some(segment);
                    shared.state().ledger.load(batch.cost());
                    return Some(batch);
                }
                Unread::Lost { segment, lost, message } => {
                    for mark in self.unmark(lost) {
                        shared.lose_unread(mark.epoch, mark.extent.events, mark.acks, &message);
                    }
                    self.spool.settle(segment, lost.events);
                }
            }
        }
        None
    }

    /// Whether memory has room for what is on disk. One batch always may come,
    /// or a full buffer would never empty itself.
    fn may_read(&self, shared: &Shared) -> bool {
        let config = &shared.config;
        self.handed_out == 0
            || shared.state().ledger.stats.pending_bytes + config.batch.bytes
                <= config.max_buffer_bytes
    }

    fn mark(&mut self, epoch: u64, events: u64, acks: Vec<(usize, Ack)>) {
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

    /// Takes the marks of the next records off, that many of them.
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
                first.extent.remove(left);
                marks.push(Mark { epoch: first.epoch, extent: left, acks: Vec::new() });
                break;
            }
        }
        marks
    }

    fn wake_at(
        &self,
        shared: &Shared,
        due: Option<Instant>,
        now: Instant,
        room_at: impl Fn(Instant) -> Option<Instant>,
    ) -> Option<Instant> {
        let may_write = self.may_write(shared);
        let write_at = if may_write { due } else { self.failing_until };
        let send_at = if self.has_waiting() {
            let may_send = !self.held.is_empty() || self.may_read(shared);
            may_send.then_some(now)
        } else if self.refused.is_some() {
            Some(now)
        } else {
            due.filter(|_| !may_write)
        };
        let times = [write_at, send_at.and_then(room_at), self.spool.sync_at()];
        times.into_iter().flatten().min()
    }
}
