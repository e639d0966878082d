//! Decides which batch is sent when, and what a response means for it.
//!
//! The dispatcher is a pure state machine that receives the time as an argument.
//! It returns the batches to send and the batches that are settled.
//!
//! A failure delays its own batch, and it also delays all requests: until one
//! succeeds, only one request is in flight at a time, after a pause that grows
//! with each failure. A failing server therefore receives single probes. New
//! batches and those that are retried take turns, so that a batch that always
//! fails does not block the others. A batch that fails although the server accepts
//! others delays nothing but itself, and is split until only the events that are
//! the reason keep failing.
//!
//! [`pace`] decides about the pauses, [`deadlines`] about last attempts and expiry,
//! [`outcome`] about what a response means; [`retrying`] keeps batches that failed, and
//! [`refused`] events that the server refuses while it accepts others; [`size_limit`]
//! remembers which size of request it refuses, and [`acceptance`] which share of new
//! batches it accepts.

mod acceptance;
mod deadlines;
mod outcome;
mod pace;
mod refused;
mod retrying;
mod size_limit;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::delivery::dispatch::acceptance::Acceptance;
use crate::delivery::dispatch::pace::Pace;
use crate::delivery::dispatch::refused::Refused;
use crate::delivery::dispatch::retrying::Retrying;
use crate::delivery::dispatch::size_limit::SizeLimit;
use crate::delivery::retry::RetryPolicy;
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::Batch;

/// Bodies of up to this many bytes are not worth compressing.
const MAX_UNCOMPRESSED_BYTES: usize = 1024;

/// How long before the end of the delivery timeout the last attempt begins.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// A request that has had no response for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// Identifies a batch that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    /// The ticket of a second request with the same batch. The ids of the events
    /// make it safe.
    second: Option<Ticket>,
    /// A second request is to be sent.
    is_second_due: bool,
    /// When the request was sent, or when one of two requests ended.
    sent_at: Instant,
    /// How many requests the server had accepted when the batch was sent.
    accepted_before: u64,
    batch: Batch,
    is_compressed: bool,
    /// The events were refused before.
    is_refused: bool,
}

impl InFlight {
    fn has(&self, ticket: Ticket) -> bool {
        self.ticket == ticket || self.second == Some(ticket)
    }

    /// Ends one of two requests. Returns `false` if there is only one.
    fn end_one(&mut self, ticket: Ticket, now: Instant) -> bool {
        let Some(second) = self.second.take() else { return false };
        self.sent_at = now;
        if self.ticket == ticket {
            self.ticket = second;
        }
        true
    }
}

/// A batch in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// A batch to send.
#[derive(Debug)]
pub(crate) struct OutgoingBatch<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) batch: &'a Batch,
    pub(crate) is_compressed: bool,
    /// How long the request may take at most, so that the delivery timeout is
    /// kept.
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchOptions {
    pub(crate) retry: RetryPolicy,
    pub(crate) max_in_flight: usize,
    pub(crate) compression: bool,
    pub(crate) max_batch_events: usize,
    /// The memory of events that the server refuses or fails with, while it accepts
    /// others, in bytes.
    pub(crate) max_refused_bytes: usize,
    pub(crate) request_timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    options: DispatchOptions,
    pace: Pace,
    size_limit: SizeLimit,
    /// Batches to send as soon as possible: new ones, and parts of split ones.
    queue: VecDeque<Batch>,
    retrying: Retrying,
    refused: Refused,
    acceptance: Acceptance,
    /// The last request had a batch that was retried or refused.
    was_retry: bool,
    in_flight: Vec<InFlight>,
    /// The number of requests that hang, although the server has accepted others since
    /// they were sent.
    hanging: usize,
    next_ticket: u64,
    /// Why requests fail at present.
    last_failure: Option<(LossReason, String)>,
    /// Why a batch failed most recently although the server accepted others.
    last_own_failure: Option<(LossReason, String)>,
    /// See [`is_own_failure`](Self::is_own_failure).
    is_own_failure: bool,
    /// The time of the last call to [`advance`](Self::advance).
    advanced_to: Option<Instant>,
}

impl Dispatcher {
    pub(crate) fn new(options: DispatchOptions, rng: fastrand::Rng) -> Self {
        Self {
            options,
            pace: Pace::new(options.retry, rng),
            size_limit: SizeLimit::new(),
            queue: VecDeque::new(),
            retrying: Retrying::default(),
            refused: Refused::default(),
            acceptance: Acceptance::default(),
            was_retry: false,
            in_flight: Vec::new(),
            hanging: 0,
            next_ticket: 0,
            last_failure: None,
            last_own_failure: None,
            is_own_failure: false,
            advanced_to: None,
        }
    }

    /// Returns whether the last response was a failure that is due to an event of its
    /// batch, because the server accepts others.
    pub(crate) fn is_own_failure(&self) -> bool {
        self.is_own_failure
    }

    /// Returns the batches that failed although the server accepted others.
    fn own_failures(&self) -> impl Iterator<Item = &Batch> {
        let sent = self.in_flight.iter().map(|sent| &sent.batch);
        self.retrying.own_failures().chain(sent.filter(|batch| batch.has_own_failures()))
    }

    /// Returns the number of events that the server refused for now or failed with,
    /// while it accepted others.
    pub(crate) fn refused_events(&self) -> u64 {
        let refused = self.in_flight.iter().filter(|sent| sent.is_refused).map(|sent| &sent.batch);
        let refused = refused.filter(|batch| !batch.has_own_failures());
        let batches = refused.chain(self.own_failures());
        self.refused.events() + batches.map(|batch| batch.len() as u64).sum::<u64>()
    }

    /// Returns whether the server refuses some events while it accepts others.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.events() > 0 || self.in_flight.iter().any(|sent| sent.is_refused)
    }

    /// Returns whether a new batch would be sent immediately.
    pub(crate) fn wants_batch(&self, now: Instant) -> bool {
        self.may_send(now)
            && self.queue.is_empty()
            && (self.retry_at().is_none_or(|at| at > now) || self.is_turn_of_new())
    }

    /// Returns whether a new batch is sent before one that is due for a retry. During an
    /// outage, most new batches wait where they can still be spooled.
    fn is_turn_of_new(&self) -> bool {
        let failed = self.retrying.iter().filter(|batch| !batch.has_own_failures());
        let bytes: usize = failed.map(Batch::cost).sum();
        self.was_retry && bytes < self.options.max_refused_bytes / 2
    }

    /// Adds a batch to send.
    pub(crate) fn offer(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// Returns the next batch to send now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<OutgoingBatch<'_>> {
        if let Some(index) = self.in_flight.iter().position(|sent| sent.is_second_due) {
            return self.send_again(index, now);
        }
        if !self.may_send(now) {
            return None;
        }
        let (mut batch, is_refused) = self.next_batch(now)?;
        if let Some(limit) = self.size_limit.bytes(now)
            && !is_refused
            && batch.bytes().len() > limit
            && batch.len() > 1
        {
            batch = self.split_to(batch, limit)?;
        }
        if batch.segment.is_none() {
            let opened_at = batch.opened_at.unwrap_or(now);
            batch.timeout_started_at.get_or_insert(opened_at);
        }
        if batch.is_new() {
            batch.accepted_before = self.acceptance.requests();
        }
        let ticket = self.take_ticket();
        self.pace.begin_attempt(now);
        let is_compressed =
            self.options.compression && batch.bytes().len() > MAX_UNCOMPRESSED_BYTES;
        let timeout = self.request_timeout(&batch, now);
        self.in_flight.push(InFlight {
            ticket,
            second: None,
            is_second_due: false,
            sent_at: now,
            accepted_before: self.acceptance.requests(),
            batch,
            is_compressed,
            is_refused,
        });
        let InFlight { batch, .. } = self.in_flight.last()?;
        Some(OutgoingBatch { ticket, batch, is_compressed, timeout })
    }

    /// Returns the next batch to send, and whether its events were refused before.
    fn next_batch(&mut self, now: Instant) -> Option<(Batch, bool)> {
        if std::mem::take(&mut self.was_retry)
            && let Some(batch) = self.queue.pop_front()
        {
            return Some((batch, false));
        }
        let due = self.retrying.take_due(self.has_room_for_failing(), now);
        let retried = due.map(|batch| (batch, false));
        let retried = retried.or_else(|| Some((self.refused.take_due(now)?, true)));
        self.was_retry = retried.is_some();
        retried.or_else(|| Some((self.queue.pop_front()?, false)))
    }

    /// Returns when the next batch is retried.
    fn retry_at(&self) -> Option<Instant> {
        self.retrying.due_at(self.has_room_for_failing())
    }

    /// Returns whether a batch that fails by itself may be sent. They use only a part
    /// of the requests, because theirs may hang.
    fn has_room_for_failing(&self) -> bool {
        let in_flight = self.in_flight.iter().filter(|sent| sent.batch.has_own_failures()).count();
        in_flight < self.options.max_in_flight.div_ceil(2)
    }

    /// Sends a batch again whose request has no response yet.
    fn send_again(&mut self, index: usize, now: Instant) -> Option<OutgoingBatch<'_>> {
        let ticket = self.take_ticket();
        let timeout = self.request_timeout(&self.in_flight.get(index)?.batch, now);
        let sent = self.in_flight.get_mut(index)?;
        sent.is_second_due = false;
        sent.second = Some(ticket);
        let InFlight { batch, is_compressed, .. } = sent;
        Some(OutgoingBatch { ticket, batch, is_compressed: *is_compressed, timeout })
    }

    fn take_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Returns as many events of a batch as fit into `limit` bytes, at least one,
    /// and queues the others, to which another limit may apply.
    fn split_to(&mut self, batch: Batch, limit: usize) -> Option<Batch> {
        let mut bytes = 0;
        let fitting = batch.lines().iter().take_while(|line| {
            bytes += line.len();
            bytes <= limit
        });
        let count = fitting.count().max(1);
        let mut parts = batch.split(2, |index| usize::from(index >= count));
        let rest = parts.pop()?;
        self.queue.push_front(rest);
        parts.pop()
    }

    /// Returns the batch with this ticket, unless another request has settled it.
    pub(crate) fn sent(&self, ticket: Ticket) -> Option<Sent> {
        let InFlight { batch, .. } = self.in_flight.iter().find(|sent| sent.has(ticket))?;
        Some(Sent { events: batch.len(), bytes: batch.bytes().len() })
    }

    /// Requeues all batches in flight because their responses will not arrive.
    pub(crate) fn abandon_in_flight(&mut self) {
        for sent in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.queue.push_front(sent.batch);
        }
        self.refused.end_attempt(false, Instant::now());
    }

    /// Removes all batches.
    pub(crate) fn drain(&mut self) -> Vec<Batch> {
        self.abandon_in_flight();
        let waiting = self.retrying.drain().chain(self.refused.drain());
        waiting.chain(std::mem::take(&mut self.queue)).collect()
    }

    /// Returns how many requests may be in flight. Those that hang while the server
    /// accepts others do not count, up to as many again.
    fn limit(&self) -> usize {
        let is_probing = self.pace.is_failing() && !self.pace.is_wanted();
        let limit = if is_probing { 1 } else { self.options.max_in_flight };
        limit + self.hanging.min(self.options.max_in_flight)
    }

    fn may_send(&self, now: Instant) -> bool {
        self.in_flight.len() < self.limit() && self.pace.may_send(now)
    }
}

#[cfg(test)]
mod tests;
