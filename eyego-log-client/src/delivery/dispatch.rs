//! Which batch is sent when, and what an answer does to it: a pure state
//! machine with the time handed in. It does no I/O and counts nothing: it says
//! what is to be sent, and which events have met their fate.
//!
//! A failure concerns the batch, which is tried again after a pause of its
//! own, and the server: until a request succeeds, only one at a time is under
//! way, after a pause that doubles with each failure. So a server in trouble
//! sees a probe and not a storm, and a batch that always fails does not keep
//! the others waiting.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::ledger::Fate;
use crate::loss::LossReason;
use crate::retry::{Jitter, RetryPolicy};
use crate::verdict::{Rejected, Verdict};

/// Bodies up to this many bytes are not worth compressing.
const COMPRESSED_FROM: usize = 1024;

/// Names a batch that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    batch: Batch,
    is_compressed: bool,
}

/// A batch to be sent.
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) batch: &'a Batch,
    pub(crate) is_compressed: bool,
}

/// Events that are done with.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) batch: Batch,
    pub(crate) fate: Fate,
    /// Why, where they are lost.
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    policy: RetryPolicy,
    max_in_flight: usize,
    /// To be sent as soon as it may be: new ones, and halves.
    queue: VecDeque<Batch>,
    /// To be sent again, not before their time; the oldest failure first.
    retrying: VecDeque<(Instant, Batch)>,
    in_flight: Vec<InFlight>,
    next_ticket: u64,
    /// Failures since the last success.
    streak: u32,
    paused_until: Option<Instant>,
    compresses: bool,
    jitter: Jitter,
}

impl Dispatcher {
    pub(crate) fn new(
        policy: RetryPolicy,
        max_in_flight: usize,
        compresses: bool,
        seed: u64,
    ) -> Self {
        Self {
            policy,
            max_in_flight,
            queue: VecDeque::new(),
            retrying: VecDeque::new(),
            in_flight: Vec::new(),
            next_ticket: 0,
            streak: 0,
            paused_until: None,
            compresses,
            jitter: Jitter::new(seed),
        }
    }

    /// Whether a new batch would be sent at once.
    pub(crate) fn wants_batch(&self, now: Instant) -> bool {
        self.may_send(now)
            && self.queue.is_empty()
            && !self.retrying.iter().any(|(due, _)| *due <= now)
    }

    /// Takes a batch on.
    pub(crate) fn offer(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// The next batch to be sent, if one is to be sent now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Sending<'_>> {
        if !self.may_send(now) {
            return None;
        }
        let due = self.retrying.iter().position(|(due, _)| *due <= now);
        let retried = due.and_then(|index| self.retrying.remove(index)).map(|(_, batch)| batch);
        let mut batch = retried.or_else(|| self.queue.pop_front())?;
        if batch.segment.is_none() {
            batch.timed_from.get_or_insert(now);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let is_compressed = self.compresses && batch.bytes().len() > COMPRESSED_FROM;
        self.in_flight.push(InFlight { ticket, batch, is_compressed });
        let InFlight { batch, .. } = self.in_flight.last()?;
        Some(Sending { ticket, batch, is_compressed })
    }

    /// When [`poll`](Self::poll) may have something; `None` while nothing but
    /// an answer or a new batch changes that.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        if self.in_flight.len() >= self.limit() {
            return None;
        }
        if self.queue.is_empty() {
            let due = self.retrying.iter().map(|(due, _)| *due).min()?;
            Some(due).max(self.paused_until)
        } else {
            self.paused_until
        }
    }

    /// When a batch that is due then would be taken on; `None` while nothing
    /// but an answer changes that.
    pub(crate) fn room_at(&self, due: Instant) -> Option<Instant> {
        let has_room = self.in_flight.len() < self.limit() && self.queue.is_empty();
        has_room.then(|| self.paused_until.map_or(due, |until| due.max(until)))
    }

    /// How many events the batch of this ticket has.
    pub(crate) fn events_of(&self, ticket: Ticket) -> Option<usize> {
        let mut in_flight = self.in_flight.iter();
        in_flight.find(|sent| sent.ticket == ticket).map(|sent| sent.batch.len())
    }

    /// The answer to a batch that is under way: who has met their fate by it.
    /// A ticket that is not known has none.
    pub(crate) fn answer(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        now: Instant,
    ) -> Vec<Settled> {
        let position = self.in_flight.iter().position(|sent| sent.ticket == ticket);
        let Some(position) = position else { return Vec::new() };
        let InFlight { batch, is_compressed, .. } = self.in_flight.remove(position);
        match verdict {
            Verdict::Delivered => {
                self.succeed(now);
                settled(batch, Fate::Delivered, String::new())
            }
            Verdict::PerItem { rejected, retry_after } => {
                self.judge_items(batch, &rejected, retry_after, now)
            }
            Verdict::Retry { retry_after, message } => {
                self.fail(batch, retry_after, LossReason::Expired, message, now)
            }
            Verdict::Nonsense(message) => {
                self.fail(batch, None, LossReason::Nonsense, message, now)
            }
            Verdict::Halve(reason, message) => {
                if batch.len() <= 1 {
                    return settled(batch, Fate::Lost(reason), message);
                }
                let middle = batch.len() / 2;
                let halves = batch.divide(2, |index| usize::from(index >= middle));
                halves.into_iter().rev().for_each(|half| self.queue.push_front(half));
                Vec::new()
            }
            Verdict::Unencoded(message) => {
                if !is_compressed {
                    return settled(batch, Fate::Lost(LossReason::Refused), message);
                }
                self.compresses = false;
                self.queue.push_front(batch);
                Vec::new()
            }
            Verdict::Lost(reason, message) => settled(batch, Fate::Lost(reason), message),
        }
    }

    /// Batches whose answers will never come (the worker died) are tried again.
    pub(crate) fn abandon_in_flight(&mut self) {
        for sent in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.queue.push_front(sent.batch);
        }
    }

    /// Gives everything up.
    pub(crate) fn drain(&mut self) -> Vec<Batch> {
        self.abandon_in_flight();
        let retrying = std::mem::take(&mut self.retrying).into_iter().map(|(_, batch)| batch);
        retrying.chain(std::mem::take(&mut self.queue)).collect()
    }

    fn limit(&self) -> usize {
        if self.streak > 0 { 1 } else { self.max_in_flight }
    }

    fn may_send(&self, now: Instant) -> bool {
        self.in_flight.len() < self.limit() && self.paused_until.is_none_or(|until| until <= now)
    }

    fn succeed(&mut self, now: Instant) {
        self.streak = 0;
        // Whatever is in the spool can wait for a server that is away: its
        // time counts from here, where the server takes something again.
        let in_flight = self.in_flight.iter_mut().map(|sent| &mut sent.batch);
        for batch in in_flight.chain(self.retrying.iter_mut().map(|(_, batch)| batch)) {
            batch.timed_from.get_or_insert(now);
        }
    }

    /// The server is in trouble: it gets a pause, at least the one it asks for.
    fn pause(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.streak = self.streak.saturating_add(1);
        let delay = self.policy.delay(self.streak, &mut self.jitter);
        let until = now + delay.max(retry_after.unwrap_or_default());
        self.paused_until = self.paused_until.max(Some(until));
    }

    fn fail(
        &mut self,
        mut batch: Batch,
        retry_after: Option<Duration>,
        reason: LossReason,
        message: String,
        now: Instant,
    ) -> Vec<Settled> {
        self.pause(retry_after, now);
        batch.attempts += 1;
        let due = now + self.policy.delay(batch.attempts, &mut self.jitter);
        let give_up = batch.timed_from.map(|from| from + self.policy.delivery_timeout);
        // A pause that the server asks for is not held against the events.
        let is_late = |give_up| due > give_up && retry_after.is_none() || now >= give_up;
        if give_up.is_some_and(is_late) {
            return settled(batch, Fate::Lost(reason), message);
        }
        self.retrying.push_back((due, batch));
        Vec::new()
    }

    fn judge_items(
        &mut self,
        mut batch: Batch,
        rejected: &[Rejected],
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Vec<Settled> {
        const DELIVERED: usize = 0;
        const RETRIED: usize = 1;
        /// From here on one part for each reason and text.
        const LOST: usize = 2;

        let mut losses: Vec<(LossReason, &str)> = Vec::new();
        let mut parts = vec![DELIVERED; batch.len()];
        for item in rejected {
            let part = match item.reason {
                None => RETRIED,
                Some(reason) => {
                    let loss = (reason, item.message.as_str());
                    let known = losses.iter().position(|known| *known == loss);
                    LOST + known.unwrap_or_else(|| {
                        losses.push(loss);
                        losses.len() - 1
                    })
                }
            };
            if let Some(slot) = parts.get_mut(item.index) {
                *slot = part;
            }
        }
        if rejected.len() < batch.len() {
            // The server takes something: the time of what it left counts.
            batch.timed_from.get_or_insert(now);
        }
        let retried = rejected.iter().find(|item| item.reason.is_none());
        let message = retried.map_or("", |item| &item.message).to_owned();
        let divided = batch.divide(LOST + losses.len(), |index| parts[index]);
        let mut done = Vec::new();
        let mut is_retried = false;
        for (part, batch) in divided.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty())
        {
            match part {
                DELIVERED => done.extend(settled(batch, Fate::Delivered, String::new())),
                RETRIED => {
                    is_retried = true;
                    let reason = LossReason::Expired;
                    done.extend(self.fail(batch, retry_after, reason, message.clone(), now));
                }
                _ => {
                    let (reason, message) = losses[part - LOST];
                    done.extend(settled(batch, Fate::Lost(reason), message.to_owned()));
                }
            }
        }
        if !is_retried {
            self.succeed(now);
        }
        done
    }
}

fn settled(batch: Batch, fate: Fate, message: String) -> Vec<Settled> {
    vec![Settled { batch, fate, message }]
}

#[cfg(test)]
#[path = "dispatch/tests.rs"]
mod tests;
