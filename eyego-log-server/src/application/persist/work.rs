//! The worker's loop: gathers records into bulks, dispatches the bulks and
//! commits what is settled.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;

use super::Persist;
use super::assignment::{Assignment, BulkTicket};
use super::batcher::{Batcher, BulkLimits};
use crate::domain::position::Partition;
use crate::domain::subscription::{Signal, Subscription};

/// Number of copies of a record in memory while its bulk is in flight: as
/// delivered, as an entry, as the store's document and in the store's request.
const COPIES: usize = 4;

/// How long the queue's own buffer may fill before the worker pauses the
/// subscription. Pausing discards the buffer.
const HOLD_BEFORE_PAUSE: Duration = Duration::from_millis(500);

/// Longest wait for a record, so that commits and completed bulks are handled in
/// time.
const MAX_POLL: Duration = Duration::from_millis(100);

/// State of the worker between two steps.
pub(super) struct WorkerLoop<'a> {
    persist: &'a Persist,
    subscription: Box<dyn Subscription>,
    batcher: Batcher,
    assignment: Assignment,
    /// Receives the ticket of each settled bulk.
    completed: mpsc::Receiver<BulkTicket>,
    on_complete: mpsc::Sender<BulkTicket>,
    /// Since when no further bulk can be dispatched and the current one is full.
    blocked_since: Option<Instant>,
    is_paused: bool,
    last_commit: Instant,
    last_error: Option<String>,
}

impl<'a> WorkerLoop<'a> {
    pub(super) fn new(persist: &'a Persist, subscription: Box<dyn Subscription>) -> Self {
        let options = &persist.options;
        let (on_complete, completed) = mpsc::channel();
        let per_bulk = options.max_bytes / COPIES / options.bulks_in_flight.max(1);
        let limits = BulkLimits {
            records: options.bulk_records,
            bytes: per_bulk.max(1),
            linger_busy: options.linger,
            linger_idle: Duration::from_millis(5),
            small_bulk: 8,
        };
        Self {
            persist,
            subscription,
            batcher: Batcher::new(limits, Instant::now()),
            assignment: Assignment::default(),
            completed,
            on_complete,
            blocked_since: None,
            is_paused: false,
            last_commit: Instant::now(),
            last_error: None,
        }
    }

    /// Handles completed bulks, commits if it is due, dispatches the current bulk
    /// if it is due, and polls for records.
    pub(super) fn step(&mut self) {
        while let Ok(ticket) = self.completed.try_recv() {
            self.assignment.complete(ticket);
        }
        if self.last_commit.elapsed() >= self.persist.options.commit_interval {
            self.commit();
        }
        let now = Instant::now();
        let is_idle = self.assignment.bulks_in_flight() == 0;
        let linger = self.batcher.remaining_linger(now, is_idle);
        if self.assignment.bulks_in_flight() >= self.persist.options.bulks_in_flight {
            if self.batcher.is_full() {
                self.wait_for_capacity(now);
                return;
            }
        } else if linger == Some(Duration::ZERO) {
            self.dispatch();
        }
        self.blocked_since = None;
        if self.is_paused {
            self.resume();
        }
        self.poll(linger.filter(|linger| !linger.is_zero()).unwrap_or(MAX_POLL).min(MAX_POLL));
    }

    fn poll(&mut self, timeout: Duration) {
        let Self { subscription, batcher, assignment, persist, .. } = self;
        let status = &persist.settler.status;
        let now = Instant::now();
        let mut restarted = Vec::new();
        let mut is_consuming = false;
        let signal = subscription.poll(timeout, &mut |record| {
            is_consuming = true;
            if assignment.deliver(&record) {
                restarted.push(record.partition);
            }
            status.count_consumed();
            batcher.push(&record, now);
            if batcher.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        for partition in restarted {
            tracing::warn!(partition, "offsets start again: the topic was recreated");
        }
        match signal {
            Ok(signal) => {
                // A poll without records does not prove that consuming works: the
                // error may recur at the next attempt.
                is_consuming |= matches!(signal, Signal::Assigned(_));
                if is_consuming && let Some(error) = self.last_error.take() {
                    tracing::info!(error, "consuming works again");
                }
                self.handle(signal);
            }
            Err(error) => {
                let message = error.to_string();
                if self.last_error.as_deref() != Some(&message) {
                    tracing::warn!(%error, "cannot consume; retrying");
                    self.last_error = Some(message);
                }
            }
        }
    }

    fn handle(&mut self, signal: Signal) {
        match signal {
            Signal::None => {}
            Signal::Assigned(partitions) => {
                tracing::info!(?partitions, "partitions assigned");
                self.assignment.assign(&partitions);
            }
            Signal::Revoked(partitions, within) => {
                tracing::info!(?partitions, "partitions revoked");
                self.drain(&partitions, Instant::now() + within);
                self.commit();
                self.release_partitions(&partitions);
            }
            Signal::Lost(partitions) => {
                tracing::warn!(?partitions, "partitions lost");
                self.release_partitions(&partitions);
            }
            Signal::Expired(partition, records) => {
                tracing::error!(
                    partition,
                    records,
                    "records were lost before they were stored: the queue's retention is too short, its topic was \
                     deleted, or its disk is damaged"
                );
                self.persist.settler.status.count_expired(records);
            }
        }
    }

    /// Waits until these partitions have no bulk in flight, or `deadline` passes.
    fn drain(&mut self, partitions: &[Partition], deadline: Instant) {
        self.dispatch();
        while !self.assignment.is_settled(partitions) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.completed.recv_timeout(left) {
                Ok(ticket) => self.assignment.complete(ticket),
                Err(_) => return,
            }
        }
    }

    fn release_partitions(&mut self, partitions: &[Partition]) {
        let gathered = self.batcher.discard(partitions) as u64;
        // Records in flight are counted when their bulk is settled.
        let in_flight = self.assignment.remove(partitions);
        tracing::debug!(?partitions, gathered, in_flight, "partitions released");
        self.persist.settler.status.count_released(gathered);
        self.subscription.release();
    }

    /// Starts settling the gathered records.
    fn dispatch(&mut self) {
        let Some(bulk) = self.batcher.take() else { return };
        let ticket = self.assignment.dispatch(&bulk);
        self.persist.settler.status.count_dispatched(bulk.len());
        let settler = Arc::clone(&self.persist.settler);
        let on_complete = self.on_complete.clone();
        self.persist.runtime.spawn(async move {
            // Without this, a panic would look like a bulk that never completes.
            let tally = loop {
                match AssertUnwindSafe(settler.settle(&bulk)).catch_unwind().await {
                    Ok(tally) => break tally,
                    Err(_) => tracing::error!("settling a bulk panicked; retrying"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            settler.status.count_settled(tally);
            // The receiver is dropped once the worker has stopped.
            let _ = on_complete.send(ticket);
        });
    }

    /// Waits for a bulk to complete, because no further one can be dispatched.
    /// Pauses the subscription if that takes long, and keeps polling it.
    fn wait_for_capacity(&mut self, now: Instant) {
        let since = *self.blocked_since.get_or_insert(now);
        if let Ok(ticket) = self.completed.recv_timeout(MAX_POLL / 2) {
            self.assignment.complete(ticket);
            return;
        }
        if !self.is_paused && since.elapsed() >= HOLD_BEFORE_PAUSE {
            match self.subscription.pause() {
                Ok(()) => self.is_paused = true,
                Err(error) => tracing::warn!(%error, "cannot pause the subscription"),
            }
        }
        if self.is_paused {
            self.poll(Duration::ZERO);
        }
    }

    fn resume(&mut self) {
        match self.subscription.resume() {
            Ok(()) => self.is_paused = false,
            Err(error) => tracing::warn!(%error, "cannot resume the subscription"),
        }
    }

    /// Commits the settled offsets and updates lag and remaining retention.
    fn commit(&mut self) {
        self.last_commit = Instant::now();
        self.commit_offsets();
        let status = &self.persist.settler.status;
        status.log_repeated();
        let lag = self.subscription.lag();
        let now = SystemTime::now().into();
        let retention = self.subscription.retention();
        let left = retention
            .map(|retention| self.assignment.retention_left(retention, &lag, now))
            .unwrap_or_default();
        status.set_retention_left(retention, left);
        status.set_lag(lag);
    }

    fn commit_offsets(&mut self) {
        let next_offsets = self.assignment.uncommitted();
        if next_offsets.is_empty() {
            return;
        }
        match self.subscription.commit(&next_offsets) {
            Ok(()) => self.assignment.committed(&next_offsets),
            // The next commit includes these offsets.
            Err(error) => {
                let mut repeated = self.persist.settler.status.repeated();
                if let Some(count) = repeated.note("cannot commit", 1, Instant::now()) {
                    tracing::warn!(%error, count, "cannot commit offsets");
                }
            }
        }
    }

    /// Settles the records in flight until `deadline`, commits, and closes the
    /// subscription.
    pub(super) fn finish(mut self, deadline: Instant) {
        let partitions = self.assignment.partitions();
        self.drain(&partitions, deadline);
        self.commit();
        self.subscription.close();
    }
}
