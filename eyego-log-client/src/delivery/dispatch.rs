//! Decides which batch is sent when, and what a response means for it.
//!
//! The dispatcher is a pure state machine that receives the time as an argument.
//! It returns the batches to send and the batches that are settled.
//!
//! A failure delays its own batch, and it also delays all requests: until one
//! succeeds, only one request is in flight at a time, after a pause that grows
//! with each failure. A failing server therefore receives single probes, and a
//! batch that always fails does not block the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::delivery::response::{Classification, Rejected};
use crate::delivery::retry::RetryPolicy;
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Batch, Outcome, SettledBatch};

/// Bodies of up to this many bytes are not worth compressing.
const MAX_UNCOMPRESSED_BYTES: usize = 1024;

/// Identifies a batch that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    batch: Batch,
    is_compressed: bool,
}

/// A batch to send.
#[derive(Debug)]
pub(crate) struct OutgoingBatch<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) batch: &'a Batch,
    pub(crate) is_compressed: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchOptions {
    pub(crate) retry: RetryPolicy,
    pub(crate) max_in_flight: usize,
    pub(crate) compression: bool,
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    options: DispatchOptions,
    /// Batches to send as soon as possible: new ones, and parts of split ones.
    queue: VecDeque<Batch>,
    /// Batches to retry, each not before its time. The oldest failure is first.
    retrying: VecDeque<(Instant, Batch)>,
    in_flight: Vec<InFlight>,
    next_ticket: u64,
    /// The number of failures since the last success.
    failures: u32,
    paused_until: Option<Instant>,
    rng: fastrand::Rng,
}

impl Dispatcher {
    pub(crate) fn new(options: DispatchOptions, rng: fastrand::Rng) -> Self {
        Self {
            options,
            queue: VecDeque::new(),
            retrying: VecDeque::new(),
            in_flight: Vec::new(),
            next_ticket: 0,
            failures: 0,
            paused_until: None,
            rng,
        }
    }

    /// Returns whether a new batch would be sent immediately.
    pub(crate) fn wants_batch(&self, now: Instant) -> bool {
        self.may_send(now)
            && self.queue.is_empty()
            && !self.retrying.iter().any(|(due, _)| *due <= now)
    }

    /// Adds a batch to send.
    pub(crate) fn offer(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// Returns the next batch to send now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<OutgoingBatch<'_>> {
        if !self.may_send(now) {
            return None;
        }
        let due = self.retrying.iter().position(|(due, _)| *due <= now);
        let retried = due.and_then(|index| self.retrying.remove(index)).map(|(_, batch)| batch);
        let mut batch = retried.or_else(|| self.queue.pop_front())?;
        if batch.segment.is_none() {
            batch.timeout_started_at.get_or_insert(now);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let is_compressed =
            self.options.compression && batch.bytes().len() > MAX_UNCOMPRESSED_BYTES;
        self.in_flight.push(InFlight { ticket, batch, is_compressed });
        let InFlight { batch, .. } = self.in_flight.last()?;
        Some(OutgoingBatch { ticket, batch, is_compressed })
    }

    /// Returns when [`poll`](Self::poll) may return a batch, or `None` if only a
    /// response or a new batch can change that.
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

    /// Returns when a new batch that is due at `due` can be sent, or `None` if
    /// only a response can change that.
    pub(crate) fn can_send_at(&self, due: Instant) -> Option<Instant> {
        let has_room = self.in_flight.len() < self.limit() && self.queue.is_empty();
        has_room.then(|| self.paused_until.map_or(due, |until| due.max(until)))
    }

    /// Returns the number of events in the batch with this ticket.
    pub(crate) fn events_of(&self, ticket: Ticket) -> Option<usize> {
        let mut in_flight = self.in_flight.iter();
        in_flight.find(|sent| sent.ticket == ticket).map(|sent| sent.batch.len())
    }

    /// Handles the response to a batch. Returns the batches that are now
    /// settled. An unknown ticket is ignored.
    pub(crate) fn handle_response(
        &mut self,
        ticket: Ticket,
        classification: Classification,
        now: Instant,
    ) -> Vec<SettledBatch> {
        let position = self.in_flight.iter().position(|sent| sent.ticket == ticket);
        let Some(position) = position else { return Vec::new() };
        let InFlight { mut batch, is_compressed, .. } = self.in_flight.remove(position);
        match classification {
            Classification::Delivered => {
                self.succeed(now);
                settled(batch, Outcome::Delivered)
            }
            Classification::PerItem { rejected, retry_after } => {
                self.settle_items(batch, &rejected, retry_after, now)
            }
            Classification::Retry { retry_after, message } => {
                self.fail(batch, retry_after, LossReason::Expired, message, now)
            }
            Classification::UnexpectedResponse(message) => {
                self.fail(batch, None, LossReason::UnexpectedResponse, message, now)
            }
            Classification::SplitBatch(reason, message) => {
                if batch.len() <= 1 {
                    return settled(batch, Outcome::lost(reason, message));
                }
                let middle = batch.len() / 2;
                let halves = batch.split(2, |index| usize::from(index >= middle));
                halves.into_iter().rev().for_each(|half| self.queue.push_front(half));
                Vec::new()
            }
            Classification::DisableCompression(message) => {
                if !is_compressed {
                    return settled(batch, Outcome::lost(LossReason::Refused, message));
                }
                self.options.compression = false;
                self.queue.push_front(batch);
                Vec::new()
            }
            Classification::Unauthorized { can_key_change, message } => {
                let is_spooled = batch.segment.is_some();
                if is_spooled {
                    // The wait for a key does not count against the timeout.
                    batch.timeout_started_at = None;
                }
                if is_spooled || can_key_change {
                    self.fail(batch, None, LossReason::Unauthorized, message, now)
                } else {
                    settled(batch, Outcome::lost(LossReason::Unauthorized, message))
                }
            }
            Classification::Lost(reason, message) => settled(batch, Outcome::lost(reason, message)),
        }
    }

    /// Requeues all batches in flight because their responses will not arrive.
    pub(crate) fn abandon_in_flight(&mut self) {
        for sent in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.queue.push_front(sent.batch);
        }
    }

    /// Removes all batches.
    pub(crate) fn drain(&mut self) -> Vec<Batch> {
        self.abandon_in_flight();
        let retrying = std::mem::take(&mut self.retrying).into_iter().map(|(_, batch)| batch);
        retrying.chain(std::mem::take(&mut self.queue)).collect()
    }

    fn limit(&self) -> usize {
        if self.failures > 0 { 1 } else { self.options.max_in_flight }
    }

    fn may_send(&self, now: Instant) -> bool {
        self.in_flight.len() < self.limit() && self.paused_until.is_none_or(|until| until <= now)
    }

    fn succeed(&mut self, now: Instant) {
        self.failures = 0;
        // The delivery timeout of spooled batches begins once the server is
        // reachable, so an outage does not count against them.
        let in_flight = self.in_flight.iter_mut().map(|sent| &mut sent.batch);
        for batch in in_flight.chain(self.retrying.iter_mut().map(|(_, batch)| batch)) {
            batch.timeout_started_at.get_or_insert(now);
        }
    }

    /// Pauses all requests, at least for as long as the server asked.
    fn pause(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let delay = self.options.retry.delay(self.failures, &mut self.rng);
        let until = now + delay.max(retry_after.unwrap_or_default());
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// Schedules a retry, or settles the batch as lost if its delivery timeout
    /// has expired.
    fn fail(
        &mut self,
        mut batch: Batch,
        retry_after: Option<Duration>,
        reason: LossReason,
        message: String,
        now: Instant,
    ) -> Vec<SettledBatch> {
        self.pause(retry_after, now);
        batch.attempts += 1;
        let due = now + self.options.retry.delay(batch.attempts, &mut self.rng);
        let expires_at = batch
            .timeout_started_at
            .map(|started_at| started_at + self.options.retry.delivery_timeout);
        // A pause that the server asked for may exceed the delivery timeout.
        let is_expired =
            |expires_at| due > expires_at && retry_after.is_none() || now >= expires_at;
        let is_too_old = batch.expires_at.is_some_and(|at| now >= at);
        if is_too_old || expires_at.is_some_and(is_expired) {
            return settled(batch, Outcome::lost(reason, message));
        }
        self.retrying.push_back((due, batch));
        Vec::new()
    }

    /// Splits a batch by the outcome of its events: delivered, to be retried,
    /// and lost, with one part for each combination of reason and message.
    fn settle_items(
        &mut self,
        mut batch: Batch,
        rejected: &[Rejected],
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Vec<SettledBatch> {
        const DELIVERED: usize = 0;
        const RETRIED: usize = 1;
        const FIRST_LOST: usize = 2;

        let mut losses: Vec<(LossReason, &str)> = Vec::new();
        let mut parts = vec![DELIVERED; batch.len()];
        for item in rejected {
            let part = match item.reason {
                None => RETRIED,
                Some(reason) => {
                    let loss = (reason, item.message.as_str());
                    let known = losses.iter().position(|known| *known == loss);
                    FIRST_LOST
                        + known.unwrap_or_else(|| {
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
            // The server is reachable, so the delivery timeout begins.
            batch.timeout_started_at.get_or_insert(now);
        }
        let first_retried = rejected.iter().find(|item| item.reason.is_none());
        let retry_message = first_retried.map_or("", |item| &item.message).to_owned();
        let batches = batch.split(FIRST_LOST + losses.len(), |index| parts[index]);
        let mut settled_batches = Vec::new();
        for (part, batch) in batches.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty())
        {
            settled_batches.extend(match part {
                DELIVERED => settled(batch, Outcome::Delivered),
                RETRIED => {
                    let message = retry_message.clone();
                    self.fail(batch, retry_after, LossReason::Expired, message, now)
                }
                _ => {
                    let (reason, message) = losses[part - FIRST_LOST];
                    settled(batch, Outcome::lost(reason, message))
                }
            });
        }
        if first_retried.is_none() {
            self.succeed(now);
        }
        settled_batches
    }
}

fn settled(batch: Batch, outcome: Outcome) -> Vec<SettledBatch> {
    vec![SettledBatch { batch, outcome }]
}

#[cfg(test)]
mod tests;
