//! The worker thread. It performs the I/O that the batch source and the
//! dispatcher ask for, and passes them the time and the responses.
//!
//! The thread runs its own single-threaded runtime, so the client works under
//! any runtime of the program, and without one.

pub(crate) mod start;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::delivery::batch_source::{BatchSource, Effect, Next};
use crate::delivery::compress::Compressor;
use crate::delivery::dispatch::{Dispatcher, Sent};
use crate::delivery::mailbox::{Completion, Mailbox, Messages};
use crate::delivery::response::{self, Classification};
use crate::delivery::sender::Sender;
use crate::model::loss_reason::LossReason;
use crate::pipeline::batch::{Acknowledgement, Batch, Outcome, SettledBatch};
use crate::pipeline::event_queue::EventQueue;
use crate::pipeline::problems::{DELIVERY_FAILS, ProblemKind};
use crate::pipeline::reporter::Reporter;
use crate::spool::{SpoolOptions, TOO_OLD};
use crate::sync::{Notify, mark_own_thread, panic_message};
use crate::transport::TransportResult;

/// A worker that panics more often than this without a delivery in between
/// is not restarted.
const MAX_PANICS: u32 = 10;

/// The pause before a worker that panicked is restarted.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Worker {
    pub(crate) queue: Arc<EventQueue>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) reporter: Reporter,
    /// Notified when the queue or the mailbox has work.
    pub(crate) notify: Arc<Notify>,
    pub(crate) sender: Sender,
    /// The spool, if no file descriptor was free when the client was built.
    pub(crate) unopened_spool: Option<SpoolOptions>,
    pub(crate) source: BatchSource,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) delivery_timeout: Duration,
}

impl Worker {
    /// Runs the worker until the client is closed, and restarts it after a
    /// panic.
    pub(super) fn supervise(mut self) {
        mark_own_thread();
        let mut panics = 0;
        let mut delivered = 0;
        let (reason, message) = loop {
            let error = match self.run_until_panic() {
                Ok(()) => break (LossReason::Shutdown, "the client was shut down".to_owned()),
                Err(error) => error,
            };
            self.dispatcher.abandon_in_flight();
            let delivered_now = self.queue.stats().delivered;
            panics = if delivered_now > delivered { 1 } else { panics + 1 };
            delivered = delivered_now;
            self.queue.update_stats(|stats| stats.worker_restarts += 1);
            if panics > MAX_PANICS {
                let message = format!("the worker failed {panics} times in a row: {error}");
                break (LossReason::WorkerFailed, message);
            }
            self.reporter.note(ProblemKind::Worker, "the worker is restarted: ", &error);
            std::thread::sleep(RESTART_PAUSE);
        };
        self.finish(reason, &message);
    }

    /// Ends a worker whose thread could not be started.
    pub(super) fn end_without_thread(mut self) {
        let message = "the client was shut down, and its thread could not be started";
        self.finish(LossReason::Shutdown, message);
    }

    /// Spools what can be spooled and settles the rest as lost.
    fn finish(&mut self, reason: LossReason, message: &str) {
        let now = Instant::now();
        let effects = self.source.prepare_to_close(now);
        effects.into_iter().for_each(|effect| self.apply(effect));
        self.spool_due_batches(now);
        let remaining = self.source.close(self.dispatcher.drain(), now);
        remaining.effects.into_iter().for_each(|effect| self.apply(effect));
        for acks in remaining.spooled_acks {
            acks.send(&Acknowledgement::Spooled);
        }
        remaining.spooled.into_iter().for_each(|batch| self.queue.leave_in_spool(batch));
        self.mailbox.close();
        self.queue.finish(reason, remaining.unspooled, message);
    }

    /// Runs the worker until the client is closed.
    ///
    /// # Errors
    /// Returns a description if the worker panicked.
    fn run_until_panic(&mut self) -> Result<(), String> {
        let Some(runtime) = self.prepare() else { return Ok(()) };
        // Each call leaves the state machines consistent, so they can be reused
        // after a panic.
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.run())));
        if result.is_ok() {
            // The calls that the end of the runtime drops can tell this from a panic.
            self.mailbox.close();
        }
        // A name lookup may still be blocking one of the runtime's threads.
        runtime.shutdown_background();
        result.map_err(|panic| format!("it panicked: {}", panic_message(&*panic)))
    }

    async fn run(&mut self) {
        let mut compressor = Compressor::default();
        loop {
            let Messages { responses, calls } = self.mailbox.take();
            for completion in responses {
                self.handle_response(&completion);
            }
            for call in calls {
                tokio::spawn(self.sender.clone().call(call));
            }
            let now = Instant::now();
            #[cfg(test)]
            tests::panic_if_requested(&self.mailbox);
            self.spool_due_batches(now);
            self.handle_deadlines(now);
            self.send_batches(&mut compressor, now);
            let Some(wake) = self.next_wake(now) else { return };
            let notified = self.notify.notified();
            match wake {
                Wake::At(at) => drop(tokio::time::timeout_at(at.into(), notified).await),
                Wake::OnNotification => notified.await,
            }
        }
    }

    fn handle_response(&mut self, completion: &Completion) {
        let Completion { ticket, result, duration } = completion;
        let (ticket, duration) = (*ticket, *duration);
        let Some(sent) = self.dispatcher.sent(ticket) else { return };
        let events = sent.events;
        self.note_key_problem(result);
        let now = SystemTime::now();
        let classification = response::classify(result, events, now);
        let has_accepted = match &classification {
            Classification::Delivered => true,
            Classification::PerItem { rejected, .. } => rejected.len() < events,
            _ => false,
        };
        self.queue.update_stats(|stats| {
            stats.request_time += duration;
            stats.max_request_time = duration.max(stats.max_request_time);
            if has_accepted {
                stats.last_success = Some(now.into());
            }
        });
        let failure = self.note_problems(&classification, sent);
        let is_key_refused = matches!(classification, Classification::Unauthorized { .. });
        let settled = self.dispatcher.handle_response(ticket, classification, Instant::now());
        // The events of a refused key are lost for a reason of its own, if they are.
        if let Some(message) = failure.filter(|_| !is_key_refused || settled.is_empty()) {
            self.note_failure(&message);
        }
        self.update_refused();
        self.settle(settled);
    }

    fn update_refused(&self) {
        let refused = self.dispatcher.refused_events();
        self.queue.update_stats(|stats| stats.refused = refused);
        if refused == 0 {
            self.reporter.resolve(&[ProblemKind::Refusal]);
        }
    }

    /// Notes whether the request had an earlier API key than that in the file.
    fn note_key_problem(&self, result: &TransportResult) {
        let attempt = result.as_ref().ok().and_then(response::attempt);
        match attempt.map(|attempt| &attempt.key_problem) {
            Some(Some(problem)) => {
                self.reporter.note(ProblemKind::ApiKey, "the previous API key is used: ", problem);
            }
            Some(None) => self.reporter.resolve(&[ProblemKind::ApiKey]),
            None => {}
        }
    }

    /// Counts and notes a failed request, after the dispatcher has handled it.
    fn note_failure(&self, message: &str) {
        self.queue.update_stats(|stats| stats.failed_requests += 1);
        if self.dispatcher.is_own_failure() {
            let introduction = "the server fails with some events while it accepts others: ";
            self.reporter.note(ProblemKind::Refusal, introduction, message);
        } else {
            self.reporter.note(ProblemKind::Delivery, DELIVERY_FAILS, message);
        }
    }

    /// Counts responses and notes what is wrong, or that all is well. Returns why the
    /// whole request failed, if it can be retried.
    fn note_problems(&self, classification: &Classification, sent: Sent) -> Option<String> {
        let Sent { events, bytes } = sent;
        match classification {
            Classification::Delivered => self.reporter.resolve(&ProblemKind::OF_SERVER),
            Classification::PerItem { rejected, .. } => {
                let mut retried = rejected.iter().filter(|item| item.reason.is_none());
                let first = retried.next();
                let count = first.iter().count() + retried.count();
                if rejected.len() < events {
                    self.reporter.resolve(&ProblemKind::OF_SERVER);
                }
                match first {
                    Some(first) if count < events || self.dispatcher.has_refused() => {
                        let introduction =
                            format!("the server refuses {count} of {events} events for now: ");
                        self.reporter.note(ProblemKind::Refusal, &introduction, &first.message);
                    }
                    Some(first) => return Some(first.message.clone()),
                    None => {}
                }
            }
            Classification::UnexpectedResponse(message) => {
                self.queue.update_stats(|stats| stats.unexpected_responses += 1);
                return Some(message.clone());
            }
            Classification::Retry { message, .. }
            | Classification::Unauthorized { message, .. } => {
                return Some(message.clone());
            }
            Classification::SplitBatch(_, message) if events > 1 => {
                self.queue.update_stats(|stats| stats.split_batches += 1);
                let introduction = format!(
                    "the server refuses a request with {events} events and {bytes} bytes, so \
                     smaller ones are sent: "
                );
                self.reporter.note(ProblemKind::Split, &introduction, message);
            }
            // A single event is lost, which is reported then.
            Classification::SplitBatch(..)
            | Classification::DisableCompression(_)
            | Classification::Lost(..) => {}
        }
        None
    }

    fn settle(&mut self, settled: Vec<SettledBatch>) {
        for settled in settled {
            let (segment, events) = (settled.batch.segment, settled.batch.len() as u64);
            self.queue.settle(settled);
            self.source.settle(segment, events);
        }
    }

    /// Passes on what callers with deadlines want, and settles the events whose
    /// delivery timeout has expired.
    fn handle_deadlines(&mut self, now: Instant) {
        let urgency = self.queue.take_urgency();
        if urgency.attempt_wanted {
            self.dispatcher.want_attempt(now);
        }
        for deadline in urgency.deadlines.iter() {
            self.dispatcher.wait_until(deadline, now);
        }
        self.dispatcher.advance(self.queue.oldest_at(), now);
        let mut expired = self.dispatcher.expire(now);
        if !self.delivery_timeout.is_zero()
            && !self.source.accepts_batches()
            && let Some(time) = now.checked_sub(self.delivery_timeout)
        {
            let old = std::iter::from_fn(|| self.queue.take_older(time));
            expired.extend(old.map(|batch| self.dispatcher.expired(batch)));
        }
        if !expired.is_empty() {
            self.update_refused();
            self.settle(expired);
        }
    }

    /// Moves due batches from the queue into the spool, if there is one.
    fn spool_due_batches(&mut self, now: Instant) {
        let effects = self.source.maintain(now);
        effects.into_iter().for_each(|effect| self.apply(effect));
        while self.source.accepts_batches()
            && let Some(batch) = self.queue.take_due(now)
        {
            if let Some(effect) = self.source.spool(batch, now) {
                self.apply(effect);
            }
        }
        if let Some(bytes) = self.source.spool_bytes() {
            self.queue.update_stats(|stats| stats.spool_bytes = bytes);
            if self.source.is_spool_full() {
                self.note_spool_failure("it is full, so events wait in memory");
            } else if !self.source.is_spool_failing() {
                self.reporter.resolve(&[ProblemKind::Spool]);
            }
        }
    }

    fn apply(&self, effect: Effect) {
        match effect {
            Effect::Spilled(batch) => self.queue.spill(batch),
            Effect::Refilled { cost } => self.queue.refill(cost),
            Effect::Expired(batch) => {
                let outcome = Outcome::lost(LossReason::Expired, TOO_OLD);
                self.queue.settle(SettledBatch { batch, outcome });
            }
            Effect::Unreadable { epoch, events, acks, reason, message } => {
                self.queue.lose_unreadable(epoch, events, acks, reason, &message);
            }
            Effect::SpoolFailed(error) => {
                let message = format!("it cannot be written ({error}), so events wait in memory");
                self.note_spool_failure(&message);
            }
            Effect::SpoolUnavailable { message } => {
                self.reporter.note(ProblemKind::Spool, "spooled events wait: ", &message);
            }
        }
    }

    fn note_spool_failure(&self, message: &str) {
        self.reporter.note(ProblemKind::Spool, "the spool accepts no events: ", message);
    }

    /// Sends all batches that may be sent now.
    fn send_batches(&mut self, compressor: &mut Compressor, now: Instant) {
        loop {
            if self.dispatcher.wants_batch(now)
                && let Some(batch) = self.next_batch(now)
            {
                self.dispatcher.offer(batch);
            }
            let Some(outgoing) = self.dispatcher.poll(now) else { return };
            let ticket = outgoing.ticket;
            let sender = Sender { request_timeout: outgoing.timeout, ..self.sender.clone() };
            let request = self.sender.batch_request(&outgoing, compressor);
            let bytes = request.body().len() as u64;
            self.queue.update_stats(|stats| {
                stats.requests += 1;
                stats.sent_bytes += bytes;
            });
            tokio::spawn(sender.post(ticket, request));
        }
    }

    fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        let (next, effects) = self.source.next(self.queue.pending_bytes(), now);
        effects.into_iter().for_each(|effect| self.apply(effect));
        let batch = match next {
            Next::Batch(batch) => batch,
            Next::Queue => self.queue.take_due(now)?,
            Next::Nothing => return None,
        };
        if self.source.spool_bytes().is_some() && batch.segment.is_none() {
            let events = batch.len() as u64;
            self.queue.update_stats(|stats| stats.unspooled += events);
        }
        Some(batch)
    }

    /// Returns `None` when the client is closed and everything is settled, or
    /// its deadline has passed.
    fn next_wake(&self, now: Instant) -> Option<Wake> {
        let schedule = self.queue.run_timers(now)?;
        let pending_bytes = self.queue.pending_bytes();
        let can_send_at = |due| self.dispatcher.can_send_at(due);
        let source_at = self.source.wake_at(schedule.batch_due_at, pending_bytes, now, can_send_at);
        // Events that will be spooled do not expire in the buffer.
        let has_timeout = !self.delivery_timeout.is_zero() && !self.source.accepts_batches();
        let oldest_at = schedule.oldest_at.filter(|_| has_timeout);
        let expiry = oldest_at.map(|at| at + self.delivery_timeout);
        let last_attempt = oldest_at.map(|at| self.dispatcher.last_attempt_of(at));
        let times = [
            source_at,
            schedule.timer_at,
            self.dispatcher.wake_at(),
            self.dispatcher.planned_at(),
            expiry,
            last_attempt.filter(|at| *at > now),
        ];
        Some(times.into_iter().flatten().min().map_or(Wake::OnNotification, Wake::At))
    }
}

/// What the worker waits for.
enum Wake {
    /// A point in time, or a notification before it.
    At(Instant),
    OnNotification,
}

#[cfg(test)]
mod tests;
