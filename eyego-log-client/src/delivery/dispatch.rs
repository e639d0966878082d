//! Decides which batch is sent when, and what a response means for it.
//!
//! The dispatcher is a pure state machine that receives the time as an argument.
//! It returns the batches to send and the batches that are settled.
//!
//! A failure delays its own batch, and it also delays all requests: until one
//! succeeds, only one request is in flight at a time, after a pause that grows
//! with each failure. A failing server therefore receives single probes, and a
//! batch that always fails does not block the others. [`pace`] decides about the
//! pauses, [`refused`] keeps events that the server refuses while it accepts
//! others, and [`size_limit`] remembers which size of request it refuses.

mod pace;
mod refused;
mod size_limit;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::delivery::dispatch::pace::Pace;
use crate::delivery::dispatch::refused::Refused;
use crate::delivery::dispatch::size_limit::SizeLimit;
use crate::delivery::response::{Classification, Rejected};
use crate::delivery::retry::RetryPolicy;
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Batch, Outcome, SettledBatch};

/// Bodies of up to this many bytes are not worth compressing.
const MAX_UNCOMPRESSED_BYTES: usize = 1024;

/// How long before the end of the delivery timeout the last attempt begins.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// Identifies a batch that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    batch: Batch,
    is_compressed: bool,
    /// The events were refused before.
    is_refused: bool,
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
    /// The memory that refused events may occupy, in bytes.
    pub(crate) max_refused_bytes: usize,
    pub(crate) request_timeout: Duration,
}

/// A batch that is retried at a time.
#[derive(Debug)]
struct Retry {
    due: Instant,
    failed_at: Instant,
    batch: Batch,
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    options: DispatchOptions,
    pace: Pace,
    size_limit: SizeLimit,
    /// Batches to send as soon as possible: new ones, and parts of split ones.
    queue: VecDeque<Batch>,
    /// Batches to retry, the oldest failure first.
    retrying: VecDeque<Retry>,
    refused: Refused,
    in_flight: Vec<InFlight>,
    next_ticket: u64,
    /// Why the most recent request failed.
    last_failure: Option<(LossReason, String)>,
    /// The time of the last call to [`advance`](Self::advance).
    advanced_to: Option<Instant>,
}

impl Dispatcher {
    pub(crate) fn new(options: DispatchOptions, rng: fastrand::Rng) -> Self {
        Self {
            options,
            pace: Pace::new(options.retry, rng),
            size_limit: SizeLimit::default(),
            queue: VecDeque::new(),
            retrying: VecDeque::new(),
            refused: Refused::default(),
            in_flight: Vec::new(),
            next_ticket: 0,
            last_failure: None,
            advanced_to: None,
        }
    }

    /// Notes that a caller began to wait: an attempt is made even if requests are
    /// paused.
    pub(crate) fn want_attempt(&mut self, now: Instant) {
        self.pace.want_attempt();
        self.hurry(now);
    }

    /// Notes that a caller waits until `deadline`.
    pub(crate) fn wait_until(&mut self, deadline: Instant, now: Instant) {
        self.pace.wait_until(deadline, now);
    }

    /// Makes last attempts due: those for callers, and those for events whose
    /// delivery timeout expires soon. `oldest_at` is when the oldest event in the
    /// event queue was added. Call this before [`poll`](Self::poll).
    pub(crate) fn advance(&mut self, oldest_at: Option<Instant>, now: Instant) {
        let oldest_at = oldest_at.map(|at| self.last_attempt_of(at));
        let before = self.advanced_to.replace(now);
        let is_due = |at: &Instant| before.is_none_or(|before| *at > before) && *at <= now;
        if self.last_attempts().chain(oldest_at).any(|at| is_due(&at)) {
            self.pace.take_last_chance();
            self.hurry(now);
        }
        if self.pace.advance(now) {
            self.hurry(now);
        }
    }

    /// Returns when the last attempts for all waiting batches are made.
    fn last_attempts(&self) -> impl Iterator<Item = Instant> + '_ {
        self.waiting().filter_map(|batch| Some(self.last_attempt_of(started_at(batch)?)))
    }

    fn waiting(&self) -> impl Iterator<Item = &Batch> {
        let retrying = self.retrying.iter().map(|retry| &retry.batch);
        self.queue.iter().chain(retrying).chain(self.refused.iter())
    }

    /// Makes all retries due that were not attempted within the last second.
    fn hurry(&mut self, now: Instant) {
        for retry in &mut self.retrying {
            retry.due = retry.due.min(now.max(retry.failed_at + LAST_ATTEMPT));
        }
        self.refused.hurry(now);
    }

    /// Returns the number of events that the server refused for now.
    pub(crate) fn refused_events(&self) -> u64 {
        self.refused.events()
    }

    /// Returns whether a new batch would be sent immediately.
    pub(crate) fn wants_batch(&self, now: Instant) -> bool {
        self.may_send(now)
            && self.queue.is_empty()
            && !self.retrying.iter().any(|retry| retry.due <= now)
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
        let due = self.retrying.iter().position(|retry| retry.due <= now);
        let retried = due.and_then(|index| self.retrying.remove(index)).map(|retry| retry.batch);
        let mut is_refused = false;
        let mut batch = retried
            .or_else(|| {
                let refused = self.refused.take_due(now);
                is_refused = refused.is_some();
                refused
            })
            .or_else(|| self.queue.pop_front())?;
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
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pace.begin_attempt(now);
        let is_compressed =
            self.options.compression && batch.bytes().len() > MAX_UNCOMPRESSED_BYTES;
        let timeout = self.request_timeout(&batch, now);
        self.in_flight.push(InFlight { ticket, batch, is_compressed, is_refused });
        let InFlight { batch, .. } = self.in_flight.last()?;
        Some(OutgoingBatch { ticket, batch, is_compressed, timeout })
    }

    /// Splits a batch into parts of up to `limit` bytes. Returns the first part
    /// and queues the others.
    fn split_to(&mut self, batch: Batch, limit: usize) -> Option<Batch> {
        let mut part_of = Vec::with_capacity(batch.len());
        let (mut part, mut bytes) = (0, 0);
        for line in batch.lines().iter() {
            if bytes > 0 && bytes + line.len() > limit {
                part += 1;
                bytes = 0;
            }
            bytes += line.len();
            part_of.push(part);
        }
        let mut parts = batch.split(part + 1, |index| part_of[index]);
        let rest = parts.split_off(1);
        rest.into_iter().rev().for_each(|part| self.queue.push_front(part));
        parts.pop()
    }

    fn request_timeout(&self, batch: &Batch, now: Instant) -> Duration {
        let most = self.options.request_timeout;
        let left = self.expires_at(batch).map(|at| at.saturating_duration_since(now));
        left.map_or(most, |left| left.clamp(LAST_ATTEMPT.min(most), most))
    }

    /// Returns when the batch expires, or `None` if its delivery timeout has not
    /// begun.
    fn expires_at(&self, batch: &Batch) -> Option<Instant> {
        Some(started_at(batch)? + self.options.retry.delivery_timeout)
    }

    /// Returns when the last attempt is made for events that were added at
    /// `time`.
    pub(crate) fn last_attempt_of(&self, time: Instant) -> Instant {
        let timeout = self.options.retry.delivery_timeout;
        time + (timeout - LAST_ATTEMPT.min(self.options.request_timeout).min(timeout / 2))
    }

    /// Removes the batches whose delivery timeout has expired. With a timeout of
    /// zero, an event expires only after its first attempt. Spooled events always
    /// expire after an attempt, because their timeout begins while they wait.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<SettledBatch> {
        let timeout = self.options.retry.delivery_timeout;
        let is_expired = |batch: &Batch| {
            batch.segment.is_none() && started_at(batch).is_some_and(|at| at + timeout <= now)
        };
        if timeout.is_zero() || !self.waiting().any(is_expired) {
            return Vec::new();
        }
        let mut expired = self.refused.take_expired(is_expired);
        let queue = std::mem::take(&mut self.queue);
        let (old, rest) = queue.into_iter().partition::<Vec<_>, _>(is_expired);
        expired.extend(old);
        self.queue = rest.into();
        let retrying = std::mem::take(&mut self.retrying);
        let (old, rest) =
            retrying.into_iter().partition::<Vec<_>, _>(|retry| is_expired(&retry.batch));
        expired.extend(old.into_iter().map(|retry| retry.batch));
        self.retrying = rest.into();
        expired.into_iter().map(|batch| self.expired(batch)).collect()
    }

    /// Settles a batch as expired.
    pub(crate) fn expired(&self, batch: Batch) -> SettledBatch {
        let outcome = match &self.last_failure {
            Some((reason, message)) => Outcome::lost(*reason, message),
            None => Outcome::lost(LossReason::Expired, "the delivery timeout expired"),
        };
        SettledBatch { batch, outcome }
    }

    /// Returns when [`poll`](Self::poll), [`advance`](Self::advance) or
    /// [`expire`](Self::expire) has something to do, or `None` if only a response
    /// or a new batch can change that.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let timeout = self.options.retry.delivery_timeout;
        let expiry = self.waiting().filter(|batch| batch.segment.is_none() && !timeout.is_zero());
        let expiry = expiry.filter_map(|batch| self.expires_at(batch)).min();
        let is_ahead = |at: &Instant| self.advanced_to.is_none_or(|now| *at > now);
        let last_attempt = self.last_attempts().filter(is_ahead).min();
        [self.send_at(), expiry, last_attempt].into_iter().flatten().min()
    }

    /// Returns when the next batch can be sent.
    fn send_at(&self) -> Option<Instant> {
        if self.in_flight.len() >= self.limit() {
            return None;
        }
        let may_send_at = self.pace.send_at();
        let retry_at = self.retrying.iter().map(|retry| retry.due).min();
        let due = [retry_at, self.refused.wake_at()].into_iter().flatten().min();
        if self.queue.is_empty() { due.map(|due| Some(due).max(may_send_at))? } else { may_send_at }
    }

    /// Returns when a new batch that is due at `due` can be sent, or `None` if
    /// only a response can change that.
    pub(crate) fn can_send_at(&self, due: Instant) -> Option<Instant> {
        let has_room = self.in_flight.len() < self.limit() && self.queue.is_empty();
        has_room.then(|| self.pace.send_at().map_or(due, |at| due.max(at)))
    }

    /// Returns when a planned attempt makes requests possible again.
    pub(crate) fn planned_at(&self) -> Option<Instant> {
        self.pace.planned_at()
    }

    /// Returns the number of events in the batch with this ticket, and their
    /// size in bytes.
    pub(crate) fn size_of(&self, ticket: Ticket) -> Option<(usize, usize)> {
        let mut in_flight = self.in_flight.iter();
        let sent = in_flight.find(|sent| sent.ticket == ticket)?;
        Some((sent.batch.len(), sent.batch.bytes().len()))
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
        let InFlight { mut batch, is_compressed, is_refused, .. } = self.in_flight.remove(position);
        if is_refused && !matches!(classification, Classification::PerItem { .. }) {
            let is_delivered = classification == Classification::Delivered;
            self.refused.end_attempt(is_delivered, now);
        }
        match classification {
            Classification::Delivered => {
                self.succeed(now);
                settled(batch, Outcome::Delivered)
            }
            Classification::PerItem { rejected, retry_after } => {
                self.settle_items(batch, &rejected, retry_after, is_refused, now)
            }
            Classification::Retry { retry_after, message } => {
                self.fail(batch, retry_after, LossReason::Expired, message, now)
            }
            Classification::UnexpectedResponse(message) => {
                self.fail(batch, None, LossReason::UnexpectedResponse, message, now)
            }
            Classification::SplitBatch(reason, message) => {
                self.split_refused(batch, reason, message, now)
            }
            Classification::DisableCompression(message) => {
                if !is_compressed {
                    self.pace.refuse(now);
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
                    self.pace.refuse(now);
                    settled(batch, Outcome::lost(LossReason::Unauthorized, message))
                }
            }
            Classification::Lost(reason, message) => {
                self.pace.refuse(now);
                settled(batch, Outcome::lost(reason, message))
            }
        }
    }

    /// Sends a batch that was refused as a whole again, in halves. The halves go
    /// to the end of the queue: if one event is the reason, the server accepts
    /// every second part, and the refusals cause no pause.
    fn split_refused(
        &mut self,
        batch: Batch,
        reason: LossReason,
        message: String,
        now: Instant,
    ) -> Vec<SettledBatch> {
        if batch.len() <= 1 {
            if self.pace.has_accepted() {
                self.size_limit.clear();
            }
            self.pace.refuse(now);
            return settled(batch, Outcome::lost(reason, message));
        }
        self.pace.refuse(now);
        self.size_limit.halve(batch.bytes().len(), now);
        let middle = batch.len() / 2;
        self.queue.extend(batch.split(2, |index| usize::from(index >= middle)));
        self.last_failure = Some((LossReason::Expired, message));
        Vec::new()
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
        let retrying = std::mem::take(&mut self.retrying).into_iter().map(|retry| retry.batch);
        let refused = self.refused.drain();
        retrying.chain(refused).chain(std::mem::take(&mut self.queue)).collect()
    }

    fn limit(&self) -> usize {
        let is_probing = self.pace.is_failing() && !self.pace.is_wanted();
        if is_probing { 1 } else { self.options.max_in_flight }
    }

    fn may_send(&self, now: Instant) -> bool {
        self.in_flight.len() < self.limit() && self.pace.may_send(now)
    }

    fn succeed(&mut self, now: Instant) {
        if self.pace.succeed() {
            // The server is well again. Only batches that failed although it
            // accepted others keep a pause of their own.
            for retry in &mut self.retrying {
                let own = match retry.batch.own_failures {
                    0 => Duration::ZERO,
                    failures => self.pace.delay(failures),
                };
                retry.due = retry.due.min(now + own);
            }
        }
        self.last_failure = None;
        // The delivery timeout of spooled batches begins once the server is
        // reachable, so an outage does not count against them.
        let in_flight = self.in_flight.iter_mut().map(|sent| &mut sent.batch);
        let retrying = self.retrying.iter_mut().map(|retry| &mut retry.batch);
        for batch in in_flight.chain(retrying).chain(self.refused.iter_mut()) {
            batch.timeout_started_at.get_or_insert(now);
        }
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
        if !self.pace.is_failing() {
            batch.own_failures += 1;
        }
        self.pace.fail(retry_after, now);
        batch.attempts += 1;
        self.last_failure = Some((reason, message.clone()));
        let is_too_old = batch.expires_at.is_some_and(|at| now >= at);
        if is_too_old || self.expires_at(&batch).is_some_and(|at| at <= now) {
            return settled(batch, Outcome::lost(reason, message));
        }
        let mut due = now + self.pace.delay(batch.attempts);
        if let Some(started_at) = started_at(&batch) {
            due = due.min(self.last_attempt_of(started_at).max(now));
        }
        self.retrying.push_back(Retry { due, failed_at: now, batch });
        Vec::new()
    }

    /// Splits a batch by the outcome of its events: delivered, to be retried,
    /// and lost, with one part for each combination of reason and message.
    fn settle_items(
        &mut self,
        mut batch: Batch,
        rejected: &[Rejected],
        retry_after: Option<Duration>,
        is_refused: bool,
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
        let has_accepted = rejected.len() < batch.len();
        if has_accepted {
            // The server is reachable, so the delivery timeout begins.
            batch.timeout_started_at.get_or_insert(now);
            self.succeed(now);
        }
        let first_retried = rejected.iter().find(|item| item.reason.is_none());
        let retry_message = first_retried.map_or("", |item| &item.message).to_owned();
        let is_all_retried = rejected.iter().all(|item| item.reason.is_none()) && !has_accepted;
        if is_all_retried && !is_refused {
            return self.fail(batch, retry_after, LossReason::Expired, retry_message, now);
        }
        if !has_accepted && first_retried.is_none() {
            self.pace.refuse(now);
        }
        if is_refused && has_accepted {
            self.refused.end_attempt(true, now);
        }
        let batches = batch.split(FIRST_LOST + losses.len(), |index| parts[index]);
        let mut settled_batches = Vec::new();
        for (part, batch) in batches.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty())
        {
            settled_batches.extend(match part {
                DELIVERED => settled(batch, Outcome::Delivered),
                RETRIED => self.retry_refused(batch, retry_after, &retry_message, now),
                _ => {
                    let (reason, message) = losses[part - FIRST_LOST];
                    settled(batch, Outcome::lost(reason, message))
                }
            });
        }
        if is_refused && !has_accepted {
            self.refused.end_attempt(false, now);
        }
        settled_batches
    }

    /// Retries events that the server refused for now, separately from all
    /// others.
    fn retry_refused(
        &mut self,
        batch: Batch,
        retry_after: Option<Duration>,
        message: &str,
        now: Instant,
    ) -> Vec<SettledBatch> {
        if self.expires_at(&batch).is_some_and(|at| at <= now) {
            return settled(batch, Outcome::lost(LossReason::Expired, message));
        }
        let delay = |failures| self.pace.delay(failures).max(retry_after.unwrap_or_default());
        self.refused.add(batch, self.options.max_batch_events, now, delay);
        let mut excess = Vec::new();
        while let Some(batch) = self.refused.take_excess(self.options.max_refused_bytes) {
            let message = format!("the server keeps refusing too many events: {message}");
            excess.extend(settled(batch, Outcome::lost(LossReason::Overflow, message)));
        }
        excess
    }
}

/// Returns when the delivery timeout of the batch began. That of spooled events
/// begins when the server is reachable.
fn started_at(batch: &Batch) -> Option<Instant> {
    batch.timeout_started_at.or(batch.opened_at.filter(|_| batch.segment.is_none()))
}

fn settled(batch: Batch, outcome: Outcome) -> Vec<SettledBatch> {
    vec![SettledBatch { batch, outcome }]
}

#[cfg(test)]
mod tests;
