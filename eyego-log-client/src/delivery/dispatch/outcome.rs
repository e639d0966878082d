//! What the response to a batch means for its events, and for later requests.

use std::time::{Duration, Instant};

use crate::delivery::dispatch::deadlines::started_at;
use crate::delivery::dispatch::pace::WAITING_INTERVAL;
use crate::delivery::dispatch::retrying::SPLIT_AFTER;
use crate::delivery::dispatch::{Dispatcher, InFlight, Ticket};
use crate::delivery::response::{Classification, Rejected};
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Batch, Outcome, SettledBatch};

impl Dispatcher {
    /// Handles the response to a batch. Returns the batches that are now
    /// settled. An unknown ticket is ignored.
    pub(crate) fn handle_response(
        &mut self,
        ticket: Ticket,
        classification: Classification,
        now: Instant,
    ) -> Vec<SettledBatch> {
        self.is_own_failure = false;
        let position = self.in_flight.iter().position(|sent| sent.has(ticket));
        let Some(position) = position else { return Vec::new() };
        let is_failure = matches!(
            classification,
            Classification::Retry { .. } | Classification::UnexpectedResponse(_)
        );
        if is_failure && self.in_flight[position].end_one(ticket, now) {
            // The other request decides.
            return Vec::new();
        }
        let InFlight { mut batch, is_compressed, is_refused, .. } = self.in_flight.remove(position);
        if is_refused && !matches!(classification, Classification::PerItem { .. }) {
            let is_delivered = classification == Classification::Delivered;
            self.refused.end_attempt(is_delivered, now);
        }
        match classification {
            Classification::Delivered => {
                self.succeed(&batch, now);
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
                // The same attempt continues, also if it was made for a caller.
                self.pace.take_last_chance();
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
        let is_too_large = self.is_too_large(&batch, now);
        if reason == LossReason::TooLarge {
            self.size_limit.refuse(batch.bytes().len(), now);
        }
        if batch.len() <= 1 {
            // A limit of the size applies to the other events, too.
            if reason != LossReason::TooLarge && self.pace.has_accepted() {
                self.size_limit.clear();
            }
            if reason == LossReason::TooLarge && is_too_large {
                self.pace.refuse_known(now);
            } else {
                self.pace.refuse(now);
            }
            return settled(batch, Outcome::lost(reason, message));
        }
        // After a few refusals, requests are as small as an event.
        if reason != LossReason::TooLarge {
            self.pace.refuse(now);
        }
        self.size_limit.halve(batch.bytes().len(), now);
        let middle = batch.len() / 2;
        self.queue.extend(batch.split(2, |index| usize::from(index >= middle)));
        self.last_failure = Some((LossReason::Expired, message));
        Vec::new()
    }

    /// Returns whether the server refuses requests of this size and accepts smaller ones.
    /// A further refusal tells nothing about others.
    fn is_too_large(&self, batch: &Batch, now: Instant) -> bool {
        self.size_limit.is_refused(batch.bytes().len(), now) && self.acceptance.is_good()
    }

    fn succeed(&mut self, batch: &Batch, now: Instant) {
        self.size_limit.accept();
        self.acceptance.accept(batch.is_new());
        if self.pace.succeed() {
            // The server is well again. Only batches that failed although it
            // accepted others keep a pause of their own.
            let pause = |own_failures| match own_failures {
                0 => Duration::ZERO,
                failures => self.pace.delay(failures),
            };
            self.retrying.resume(pause, now);
        }
        self.last_failure = None;
        if batch.len() == 1 && batch.attempts > 1 && batch.has_own_failures() {
            // The reason why this event failed is gone, perhaps that of others as well.
            self.retrying.resume(|_| Duration::ZERO, now);
        }
        // The delivery timeout of spooled batches begins once the server is
        // reachable, so an outage does not count against them.
        let in_flight = self.in_flight.iter_mut().map(|sent| &mut sent.batch);
        for batch in in_flight.chain(self.retrying.iter_mut()).chain(self.refused.iter_mut()) {
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
        let is_too_large =
            reason == LossReason::UnexpectedResponse && self.is_too_large(&batch, now);
        let is_first_attempt = batch.is_new() && !is_too_large;
        let is_own = self.acceptance.fail(&batch, is_first_attempt) || is_too_large;
        batch.accepted_before = self.acceptance.requests();
        // One that failed by itself before is not yet a sign of an outage.
        let is_known = batch.has_own_failures() && !self.pace.is_failing();
        // The first failure of an outage counts as the batch's own, until the next one.
        batch.own_failures = match is_own {
            true => batch.own_failures + 1,
            false => batch.own_failures.saturating_sub(1),
        };
        self.is_own_failure =
            is_known || is_own && (batch.own_failures > 1 || self.own_failures().next().is_some());
        batch.attempts += 1;
        if !is_own || retry_after.is_some() || self.pace.is_failing() {
            self.pace.fail(retry_after, now);
        }
        let failure = if is_own { &mut self.last_own_failure } else { &mut self.last_failure };
        *failure = Some((reason, message.clone()));
        let is_too_old = batch.expires_at.is_some_and(|at| now >= at);
        if is_too_old || self.expires_at(&batch).is_some_and(|at| at <= now) {
            return settled(batch, Outcome::lost(reason, message));
        }
        let split_at = now + self.pace.delay(SPLIT_AFTER);
        let batch = if is_own { self.retrying.split(batch, split_at, now) } else { Some(batch) };
        let Some(batch) = batch else { return Vec::new() };
        let due = self.retry_time(&batch, now);
        self.retrying.push(batch, due, now);
        let mut excess = Vec::new();
        let max_bytes = self.options.max_refused_bytes.saturating_sub(self.refused.bytes());
        while let Some(batch) = self.retrying.take_excess(max_bytes) {
            let message = format!("too many events fail while others are accepted: {message}");
            excess.extend(settled(batch, Outcome::lost(LossReason::Overflow, message)));
        }
        excess
    }

    /// Returns when a batch that has failed now is retried.
    fn retry_time(&mut self, batch: &Batch, now: Instant) -> Instant {
        let mut due = now + self.pace.delay(batch.attempts);
        let last_attempt = started_at(batch).map(|at| self.last_attempt_of(at));
        if let Some(last_attempt) = last_attempt.filter(|at| *at > now) {
            due = due.min(last_attempt);
        }
        if !batch.has_own_failures() && self.pace.has_waiting_caller() {
            due = due.min(now + WAITING_INTERVAL);
        }
        due
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
            self.succeed(&batch, now);
        }
        let first_retried = rejected.iter().find(|item| item.reason.is_none());
        let retry_message = first_retried.map_or("", |item| &item.message).to_owned();
        let is_all_retried = rejected.iter().all(|item| item.reason.is_none()) && !has_accepted;
        if is_all_retried && !is_refused {
            if !self.has_refused() {
                return self.fail(batch, retry_after, LossReason::Expired, retry_message, now);
            }
            // By chance, the batch contains only events like those that are refused.
            self.pace.refuse(now);
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

fn settled(batch: Batch, outcome: Outcome) -> Vec<SettledBatch> {
    vec![SettledBatch { batch, outcome }]
}
