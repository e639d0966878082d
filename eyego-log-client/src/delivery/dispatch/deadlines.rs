//! Deadlines of callers and of events: when something is due, when an event
//! expires, and which last attempts are made before.

use std::time::{Duration, Instant};

use crate::delivery::dispatch::{DispatchOptions, Dispatcher, HANGS_AFTER, InFlight, LAST_ATTEMPT};
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Batch, Outcome, SettledBatch};
use crate::spool::TOO_OLD;

impl Dispatcher {
    /// Notes that a caller began to wait: an attempt is made even if requests are
    /// paused.
    pub(crate) fn want_attempt(&mut self, now: Instant) {
        self.pace.want_attempt();
        self.hurry(LAST_ATTEMPT, now);
    }

    /// Notes that a caller waits until `deadline`.
    pub(crate) fn wait_until(&mut self, deadline: Instant, now: Instant) {
        self.pace.wait_until(deadline, now);
    }

    /// Makes last attempts due: those for callers, and those for events whose
    /// delivery timeout expires soon. A batch whose request hangs is sent again
    /// then, because the server may be well for other requests. `oldest_at` is when
    /// the oldest event in the event queue was added. Call this before
    /// [`poll`](Self::poll).
    pub(crate) fn advance(&mut self, oldest_at: Option<Instant>, now: Instant) {
        let oldest_at = oldest_at.map(|at| self.last_attempt_of(at));
        let before = self.advanced_to.replace(now);
        let is_due = |at: &Instant| before.is_none_or(|before| *at > before) && *at <= now;
        if self.last_attempts().chain(oldest_at).any(|at| is_due(&at)) {
            self.pace.take_last_chance();
            self.hurry(LAST_ATTEMPT, now);
        }
        let is_for_caller = self.pace.advance(now);
        if is_for_caller {
            self.hurry(LAST_ATTEMPT / 4, now);
        }
        let accepted = self.acceptance.requests();
        let hanging = self.in_flight.iter().filter(|sent| sent.hangs_at() <= now);
        self.hanging = hanging.filter(|sent| accepted > sent.accepted_before).count();
        for sent in &mut self.in_flight {
            let hangs = sent.second.is_none() && sent.sent_at + LAST_ATTEMPT <= now;
            let expires_soon = sent.last_attempt(&self.options).is_some_and(|at| is_due(&at));
            sent.is_second_due |= hangs && (is_for_caller || expires_soon);
        }
    }

    /// Returns when the last attempts for all waiting batches are made.
    fn last_attempts(&self) -> impl Iterator<Item = Instant> + '_ {
        self.waiting().filter_map(|batch| Some(self.last_attempt_of(started_at(batch)?)))
    }

    fn waiting(&self) -> impl Iterator<Item = &Batch> {
        self.queue.iter().chain(self.retrying.iter()).chain(self.refused.iter())
    }

    /// Makes retries due, but none sooner than `interval` after its last attempt.
    pub(super) fn hurry(&mut self, interval: Duration, now: Instant) {
        self.retrying.hurry(interval, now);
        self.refused.hurry(interval, now);
    }

    pub(super) fn request_timeout(&self, batch: &Batch, now: Instant) -> Duration {
        let most = self.options.request_timeout;
        let left = self.expires_at(batch).map(|at| at.saturating_duration_since(now));
        match left {
            None => most,
            // A batch that expires only after an attempt.
            Some(Duration::ZERO) => LAST_ATTEMPT.min(most),
            Some(left) => left.min(most),
        }
    }

    /// Returns when the batch expires, or `None` if its delivery timeout has not
    /// begun.
    pub(super) fn expires_at(&self, batch: &Batch) -> Option<Instant> {
        Some(started_at(batch)? + self.options.retry.delivery_timeout)
    }

    /// Returns when the last attempt is made for events that were added at
    /// `time`.
    pub(crate) fn last_attempt_of(&self, time: Instant) -> Instant {
        self.options.last_attempt_of(time)
    }

    /// Removes the batches whose delivery timeout has expired, or that have reached
    /// the maximum age of the spool. With a timeout of zero, an event expires only
    /// after its first attempt. The timeout of spooled events expires after an attempt,
    /// because it begins while they wait, unless they fail by themselves.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<SettledBatch> {
        let timeout = self.options.retry.delivery_timeout;
        let is_expired =
            |batch: &Batch| expires_while_waiting_at(batch, timeout).is_some_and(|at| at <= now);
        if !self.waiting().any(is_expired) {
            return Vec::new();
        }
        let mut expired = self.refused.take_expired(is_expired);
        let queue = std::mem::take(&mut self.queue);
        let (old, rest) = queue.into_iter().partition::<Vec<_>, _>(is_expired);
        expired.extend(old);
        self.queue = rest.into();
        expired.extend(self.retrying.take_expired(is_expired));
        expired.into_iter().map(|batch| self.expired(batch)).collect()
    }

    /// Settles a batch as expired.
    pub(crate) fn expired(&self, batch: Batch) -> SettledBatch {
        let failure = match batch.has_own_failures() {
            true => self.last_own_failure.as_ref(),
            false => self.last_failure.as_ref(),
        };
        let outcome = match failure {
            Some((reason, message)) => Outcome::lost(*reason, message),
            None if batch.expires_at.is_some() => Outcome::lost(LossReason::Expired, TOO_OLD),
            None => Outcome::lost(LossReason::Expired, "the delivery timeout expired"),
        };
        SettledBatch { batch, outcome }
    }

    /// Returns when [`poll`](Self::poll), [`advance`](Self::advance) or
    /// [`expire`](Self::expire) has something to do, or `None` if only a response
    /// or a new batch can change that.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let timeout = self.options.retry.delivery_timeout;
        let expiry = self.waiting().filter_map(|batch| expires_while_waiting_at(batch, timeout));
        let expiry = expiry.min();
        let is_ahead = |at: &Instant| self.advanced_to.is_none_or(|now| *at > now);
        let in_flight = self.in_flight.iter().filter_map(|sent| sent.last_attempt(&self.options));
        let last_attempt = self.last_attempts().chain(in_flight).filter(is_ahead).min();
        let hangs_at = self.in_flight.iter().map(InFlight::hangs_at).filter(is_ahead).min();
        [self.send_at(), expiry, last_attempt, hangs_at].into_iter().flatten().min()
    }

    /// Returns when the next batch can be sent.
    fn send_at(&self) -> Option<Instant> {
        if self.in_flight.len() >= self.limit() {
            return None;
        }
        let may_send_at = self.pace.send_at();
        let due = [self.retry_at(), self.refused.wake_at()].into_iter().flatten().min();
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
}

impl DispatchOptions {
    fn last_attempt_of(&self, time: Instant) -> Instant {
        let timeout = self.retry.delivery_timeout;
        time + (timeout - LAST_ATTEMPT.min(self.request_timeout).min(timeout / 2))
    }
}

impl InFlight {
    fn hangs_at(&self) -> Instant {
        self.sent_at + HANGS_AFTER
    }

    /// Returns when the batch is sent again because its events expire soon.
    fn last_attempt(&self, options: &DispatchOptions) -> Option<Instant> {
        let at = options.last_attempt_of(started_at(&self.batch)?);
        (self.second.is_none() && !options.retry.delivery_timeout.is_zero()).then_some(at)
    }
}

/// Returns when the batch expires without another attempt.
fn expires_while_waiting_at(batch: &Batch, timeout: Duration) -> Option<Instant> {
    let can_expire = batch.segment.is_none() || batch.has_own_failures();
    let started_at = started_at(batch).filter(|_| can_expire && !timeout.is_zero());
    let times = [started_at.map(|at| at + timeout), batch.expires_at];
    times.into_iter().flatten().min()
}

/// Returns when the delivery timeout of the batch began. That of spooled events
/// begins when the server is reachable.
pub(super) fn started_at(batch: &Batch) -> Option<Instant> {
    batch.timeout_started_at.or(batch.opened_at.filter(|_| batch.segment.is_none()))
}
